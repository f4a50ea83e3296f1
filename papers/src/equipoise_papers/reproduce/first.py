"""The first few batches of a loader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["First"]


class First:
    """Goes through the first batches of a loader, each time anew; otherwise it is the loader.

    Args:
        loader: any iterable.
        count: how many batches.

    Example:
        >>> list(First(["a", "b", "c"], 2))
        ['a', 'b']
    """

    def __init__(self, loader: Iterable[Any], count: int) -> None:
        self._loader = loader
        self._count = count

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches."""
        return itertools.islice(iter(self._loader), self._count)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the loader's: its data set, ``set_epoch``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)
