"""The batches that a step's lower level works through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from equipoise.errors import InputError

__all__ = ["endless", "take"]


def take(batches: Iterable[Any] | None, count: int) -> list[Any]:
    """The next ``count`` batches; of an iterator they are used up, a list starts again each time, ``None`` stands for no data.

    Raises:
        InputError: there are not so many, or it cannot be iterated over.
    """
    if batches is None:
        return [None] * count
    try:
        source = iter(batches)
    except TypeError:
        raise InputError(
            f"lower_batches must be an iterable of batches, one per lower step; got {type(batches).__name__}. "
            f"Pass itertools.repeat(batch) to use one batch in every step"
        ) from None
    taken = []
    for batch in source:
        taken.append(batch)
        if len(taken) == count:
            return taken
    raise InputError(
        f"lower_batches ended after {len(taken)} of the {count} batches that a step takes; pass an endless iterator, such as "
        f"equipoise.bilevel.endless(loader), or itertools.repeat(batch)"
    )


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Goes through a loader again and again; epochs follow each other in the loader's own order.

    Args:
        loader: anything that can be iterated over many times.

    Raises:
        InputError: the loader is an iterator, which ends for good, or a pass over it gave no batch.

    Example:
        >>> batches = endless([1, 2])
        >>> [next(batches) for _ in range(5)]
        [1, 2, 1, 2, 1]
    """
    if isinstance(loader, Iterator):
        raise InputError("endless() needs a loader that can be iterated over again; this is an iterator, which ends for good")
    return _endless(loader)


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise InputError("the loader of lower-level batches is empty")
