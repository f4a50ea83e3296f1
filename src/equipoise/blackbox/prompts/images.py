"""Images for prompt tuning: folders, Office's sources, and the cache of their features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.prompts.clip import Clip
from equipoise.blackbox.prompts.tasks import PromptTask
from equipoise.data.office import ImageSource, read_office
from equipoise.errors import InputError, require
from equipoise.store import replacing

__all__ = ["MEAN", "STD", "ImageSource", "cached_features", "digest_of", "office_tasks", "read_image", "read_office"]

# Of the pixels that CLIP was trained on, by channel; part of the model.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def read_image(path: Path, size: int = 224) -> NDArray[np.float32]:
    """An image [3, size, size]: the shorter edge scaled to ``size`` (bicubic), the centre cut out, channels normalised.

    Raises:
        MissingExtraError: Pillow is not installed.
        InputError: the file is no image.
    """
    module = require("PIL.Image", "prompts")
    try:
        with module.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise InputError(f"{path} cannot be read as an image ({error})") from error
    width, height = image.size
    factor = size / min(width, height)
    image = image.resize((max(size, round(width * factor)), max(size, round(height * factor))), module.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255.0
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1))


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
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, features)
    return features


def office_tasks(
    sources: Sequence[ImageSource],
    clip: Clip,
    *,
    cache: str | Path | None,
    size: int = 224,
    told: Callable[[str], object] | None = None,
) -> list[PromptTask]:
    """Encodes the images of all sources, once; afterwards the features come from the cache.

    Args:
        sources: from :func:`read_office`.
        clip: with the class names in the sources' order, underscores replaced by spaces as one likes.
        cache: folder of the features; ``None`` to keep none.
        size: pixels of an edge that the model takes.
        told: takes a line before a split is encoded.
    """
    fingerprint = clip.fingerprint()
    tasks = []
    for source in sources:
        features = {}
        for split, paths in source.paths.items():

            def encode(paths: tuple[Path, ...] = paths, what: str = f"{source.name}, {split}") -> NDArray[np.float32]:
                if told is not None:
                    told(f"encoding {len(paths)} images of {what}")
                parts = [paths[start : start + 256] for start in range(0, len(paths), 256)]
                return np.concatenate([clip.image_features(np.stack([read_image(p, size) for p in part])) for part in parts])

            features[split] = cached_features(encode, cache, [fingerprint, size, *paths])
        tasks.append(PromptTask(source.name, features, source.labels))
    return tasks
