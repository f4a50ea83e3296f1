"""Decoded images in one file that is mapped into memory, so that later epochs and runs decode nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from equipoise.data.images.decode import decode
from equipoise.data.loading.dataset_batches import DatasetBatches
from equipoise.data.loading.epoch_dataset import EpochDataset
from equipoise.errors import DataSetError

__all__ = ["cached_images"]

_VERSION = 1  # counts up when the file's content or the way of decoding changes
_CHUNK = 64


def cached_images(paths: Sequence[Path], size: tuple[int, int], folder: str | Path, *, workers: int = 0) -> Path:
    """The file that holds these images decoded; it is written first if it is not there yet.

    It is a ``.npy`` file, uint8 ``[N, H, W, 3]``. Its name has a digest of the paths, of the files' sizes and times of
    change, of ``size`` and of the format's version, so that changed images are decoded anew. It gets its name when
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
        with _locked(target.with_suffix(".lock")):
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
            raise DataSetError(f"the image {path} is not there ({error.strerror}); get it anew from its source") from error
        digest.update(f"\n{os.path.abspath(path)} {about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _complete(target: Path, count: int, size: tuple[int, int]) -> bool:
    try:
        found = np.load(target, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(found.shape == (count, *size, 3) and found.dtype == np.uint8)


def _write(target: Path, paths: Sequence[Path], size: tuple[int, int], workers: int) -> None:
    part = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(paths), *size, 3))
        start = 0
        for chunk in DatasetBatches(_Decoding(paths, size), _CHUNK, workers=workers):
            array[start : start + len(chunk)] = chunk
            start += len(chunk)
        array.flush()
        del array
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


class _Decoding(EpochDataset):
    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        self.paths = paths
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, rows: Sequence[int], epoch: int) -> np.ndarray:
        return np.stack([decode(self.paths[row], self.size) for row in rows])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock file; the operating system lets go of it when a process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes may both decode, and the later one's file counts
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
