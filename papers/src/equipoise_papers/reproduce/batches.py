"""Batches: where the model is, and only the first of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["First", "moved", "place"]


def moved(batch: Any, model: nn.Module) -> Any:
    """The batch on the model's device: tensors, graphs with a ``to``, and mappings and sequences of these."""
    return _moved(batch, place(model))


def place(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(part, device) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(part, device) for part in value)
    return value.to(device, non_blocking=True) if hasattr(value, "to") else value


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
