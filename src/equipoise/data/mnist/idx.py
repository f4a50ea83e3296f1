"""The IDX format: a magic number, the lengths of the dimensions, and the values in row-major order."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DataSetError

__all__ = ["read_idx"]

_UNSIGNED_BYTES = 0x08


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, packed by gzip (told by its first two bytes, not its name) or not.

    The file starts with two zero bytes, the kind of the values (8: unsigned bytes) and the number of dimensions; then come
    the dimensions, 32 bits each, most significant byte first; then the values.

    Raises:
        DataSetError: the file cannot be read, is no IDX file of bytes, or is shorter or longer than its header says.
    """
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataSetError(f"{path} cannot be read ({error}); get the file anew from its source") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES:
        raise DataSetError(
            f"{path} starts with the bytes {content[:4].hex(' ') or 'of an empty file'}; an IDX file of unsigned "
            "bytes starts with 00 00 08 and the number of dimensions"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataSetError(f"{path} ends within its header, after {len(content)} bytes; get the file anew from its source")
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    if len(content) != start + prod(shape):
        raise DataSetError(
            f"{path} has {len(content) - start} values, but its header says {'×'.join(map(str, shape))}; "
            "get the file anew from its source"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
