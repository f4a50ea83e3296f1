"""The images of one split or one source, by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.images.cache import cached_images
from equipoise.data.images.decode import decode
from equipoise.errors import InputError

__all__ = ["Images"]


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
