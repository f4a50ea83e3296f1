"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

__all__ = ["TEMPORARY", "plain", "read_json", "rounded", "write_json", "write_whole"]

TEMPORARY = ".part"  # ends the name of a file that is being written; nobody reads such a file


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes beside the target, forces the content to disk, and only then puts it in place.

    A process or machine that dies in between leaves the old file, or none, and a ``.part`` that is never read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    data = content.encode() if isinstance(content, str) else content
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    # The directory's entry has to reach the disk, too; where directories cannot be opened, the rename has to do.
    with contextlib.suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """Writes plain JSON; numbers that are not finite become ``null``, which every reader understands."""
    write_whole(path, json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or ``None`` where there is no such file or it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold; whatever it does not know becomes its ``repr``."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return repr(value)


def rounded(value: Any, digits: int = 6) -> Any:
    """Rounds all numbers in lists and dictionaries to so many significant digits, which keeps files small.

    Example:
        >>> rounded({"loss": (0.123456789, 1234567.8), "step": 1234567})
        {'loss': [0.123457, 1234570.0], 'step': 1234567}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry, digits) for entry in value]
    return value
