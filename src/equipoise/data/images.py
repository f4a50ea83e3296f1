"""Photographs on disk as arrays of bytes, decoded each time or once and for all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.loading import DatasetBatches, EpochDataset
from equipoise.errors import DataSetError, InputError, require
from equipoise.reading import Unreadable, regular, shielded
from equipoise.store import locked, replacing

__all__ = ["Images", "cached_images", "channels_first", "decode"]


def decode(path: str | Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image ``[H, W, 3]``, brought to ``size`` (height, width) by Pillow's antialiased bilinear filter, whatever its shape.

    Raises:
        MissingExtraError: Pillow is not installed.
        DataSetError: the file is not there, or cannot be decoded.
    """
    module = require("PIL.Image", "images")
    image = opened(path, module)
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), module.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


# Those of the data sets. Pillow hands some others, such as EPS, to programs of the system.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM")


def opened(path: str | Path, module: Any) -> Any:
    """The image in a file, in RGB, by Pillow's module ``Image``.

    Raises:
        DataSetError: it cannot be decoded, or its values are not bytes, of which a conversion would lose some.
    """
    try:
        with regular(path) as file, shielded(), module.open(file, formats=_FORMATS) as image:
            if image.mode[:1] in "IF":
                raise Unreadable(f"its values are of mode {image.mode}, not bytes")
            return image.convert("RGB")
    except Unreadable as error:
        raise DataSetError(f"{path} cannot be read as an image ({error}); get the file again from its source") from error


def channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """Bytes ``[…, H, W, 3]`` as float32 ``[…, 3, H, W]`` in [0, 1].

    Example:
        >>> channels_first(np.full((2, 4, 5, 3), 255, dtype=np.uint8)).shape
        torch.Size([2, 3, 4, 5])
    """
    return torch.from_numpy(pixels).movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)


class Images:
    """Image files as rows of bytes ``[H, W, 3]``, decoded when asked for, or once for all times if there is a cache.

    Args:
        paths: the files, in order.
        size: height and width to which all are brought; a single number for squares.
        cache: folder of the decoded images, see :func:`~equipoise.data.images.cached_images`; ``None`` to keep none.
        workers: processes that fill the cache.

    Raises:
        InputError: a size below 1.
        DataSetError: with a cache that is still to be filled: an image is missing or cannot be decoded.
    """

    def __init__(
        self, paths: Sequence[Path], size: int | tuple[int, int], *, cache: str | Path | None = None, workers: int = 0
    ) -> None:
        self.paths = tuple(paths)
        self.size = (size, size) if isinstance(size, int) else size
        if min(self.size) < 1:
            raise InputError(f"size is {size}; it must be at least one pixel")
        self.file = None if cache is None else cached_images(self.paths, self.size, cache, workers=workers)
        self._mapped: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.paths)

    def rows(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """The images of those rows, ``[n, H, W, 3]``; not views of the cache.

        Raises:
            DataSetError: an image is missing or cannot be decoded.
        """
        if self.file is None:
            return np.stack([decode(self.paths[row], self.size) for row in rows])
        if self._mapped is None:
            self._mapped = np.load(self.file, mmap_mode="r", allow_pickle=False)
        return np.asarray(self._mapped[list(rows)])

    def __getstate__(self) -> dict[str, Any]:
        """What a worker is sent: it maps the cache by itself, instead of being sent all of it."""
        return self.__dict__ | {"_mapped": None}


_VERSION = 1  # counts up when the file's content or the way of decoding changes
_CHUNK = 64


def cached_images(paths: Sequence[Path], size: tuple[int, int], folder: str | Path, *, workers: int = 0) -> Path:
    """The file that holds these images decoded; it is written first if it is not there yet.

    It is a ``.npy`` file, uint8 ``[N, H, W, 3]``. Its name has a digest of the paths, of the files' sizes and times of
    change, of ``size`` and of the format's version, so that changed images are decoded again. It gets its name when
    it is complete: an interrupted process leaves no broken cache. Of several processes one decodes and the others wait.

    Args:
        paths: the image files, in order.
        size: height and width to bring them to.
        folder: where the cache lies; made if need be.
        workers: processes that decode, beside this one; 0 decodes here.

    Raises:
        DataSetError: an image is missing or cannot be decoded, or the folder cannot be written.
    """
    target = Path(folder) / f"images-{size[0]}x{size[1]}-{_digest(paths, size)}.npy"
    if _complete(target, len(paths), size):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_suffix(".lock")):
            if not _complete(target, len(paths), size):  # another process may have been at it while this one waited
                _write(target, paths, size, workers)
    except OSError as error:
        raise DataSetError(f"the cache of decoded images {target} cannot be written ({error}); give another folder") from error
    return target


def _digest(paths: Sequence[Path], size: tuple[int, int]) -> str:
    digest = hashlib.sha256(f"{_VERSION} {size[0]} {size[1]} {len(paths)}".encode())
    for path in paths:
        try:
            about = os.stat(path)
        except OSError as error:
            raise DataSetError(f"the image {path} is not there ({error.strerror}); get it again from its source") from error
        digest.update(f"\n{os.path.abspath(path)} {about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _complete(target: Path, count: int, size: tuple[int, int]) -> bool:
    try:
        with regular(target):
            pass
        with shielded():
            found = np.load(target, mmap_mode="r", allow_pickle=False)
            return bool(found.shape == (count, *size, 3) and found.dtype == np.uint8)
    except Unreadable:
        return False


def _write(target: Path, paths: Sequence[Path], size: tuple[int, int], workers: int) -> None:
    with replacing(target) as part:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(paths), *size, 3))
        start = 0
        for chunk in DatasetBatches(_Decoding(paths, size), _CHUNK, workers=workers):
            array[start : start + len(chunk)] = chunk
            start += len(chunk)
        array.flush()
        del array


class _Decoding(EpochDataset):
    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        self.paths = paths
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, rows: Sequence[int], epoch: int) -> np.ndarray:
        return np.stack([decode(self.paths[row], self.size) for row in rows])
