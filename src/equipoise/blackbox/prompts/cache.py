"""Image features computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cached_features", "digest_of"]


def digest_of(*parts: Any) -> str:
    """A name for what features depend on: strings, arrays by their content, files by path, size and time of change.

    Example:
        >>> digest_of("a", "b") == digest_of("a", "b") != digest_of("ab")
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content = f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        elif isinstance(part, Path):
            about = part.stat()
            content = f"{part.resolve()} {about.st_size} {about.st_mtime_ns}".encode()
        else:
            content = str(part).encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:24]


def cached_features(
    compute: Callable[[], NDArray[np.float32]], folder: str | Path | None, depends_on: Sequence[Any]
) -> NDArray[np.float32]:
    """What ``compute`` returns, from the file if it has been computed before.

    Args:
        compute: makes the features [n, F].
        folder: where they are kept; ``None`` to keep none.
        depends_on: everything that they depend on, such as the model's fingerprint and the images; see :func:`digest_of`.
    """
    if folder is None:
        return compute()
    path = Path(folder) / f"features-{digest_of(*depends_on)}.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except (OSError, ValueError, EOFError):
        pass  # not there, or not whole
    features = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        np.save(file, features)
    os.replace(temporary, path)
    return features
