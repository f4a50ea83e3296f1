"""How fast the router learns: at the pace of the model's learning rate."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

__all__ = ["Pace"]


class Pace:
    """The model's learning rate, as it is and relative to the highest that it has had.

    Each parameter group is measured by its own highest rate, and groups count by how many numbers they hold. A group that has
    always had the rate 0 does not count.

    Attributes:
        peaks: the highest rate of each group so far, in the order of optimizers and groups.
    """

    def __init__(self) -> None:
        self.peaks: tuple[float, ...] = ()
        self._optimizers: list[weakref.ref[torch.optim.Optimizer]] = []
        self._counts: list[int] = []

    def follow(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Says whose rate it is."""
        if [reference() for reference in self._optimizers] != list(optimizers):
            self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]

    @property
    def groups(self) -> int:
        """How many there are to follow."""
        return len(self._groups())

    def rate(self) -> float:
        """The rate now."""
        groups = self._groups()
        return _mean([float(group["lr"]) for group in groups], groups)

    def factor(self) -> float:
        """The rate now over the highest so far, from 0 to 1; 1 where there is none to follow. A rise lifts the highest."""
        groups = self._groups()
        if not groups:
            return 1.0
        self.settle()
        rates = [float(group["lr"]) for group in groups]
        before = [*self.peaks, *[0.0] * len(rates)]
        peaks = [max(rate, peak) for rate, peak in zip(rates, before, strict=False)]
        self.peaks = (*peaks, *self.peaks[len(peaks) :])
        moving = [(rate / peak, group) for rate, peak, group in zip(rates, peaks, groups, strict=True) if peak > 0]
        return _mean([part for part, _ in moving], [group for _, group in moving]) if moving else 0.0

    def settle(self) -> tuple[float, ...]:
        """The highest rates, with a place for groups that an optimizer was given since the last look: behind its others."""
        counts = [len(groups) for groups in self._by_optimizer()]
        if self.peaks and len(counts) == len(self._counts) and counts != self._counts and all(counts):
            ends = list(accumulate(self._counts, initial=0))
            kept = [self.peaks[start : start + before] for start, before in zip(ends, self._counts, strict=False)]
            self.peaks = tuple(
                peak for own, now in zip(kept, counts, strict=True) for peak in (*own, *[0.0] * (now - len(own)))[:now]
            )
        self._counts = counts
        return self.peaks

    def load(self, peaks: Sequence[float]) -> None:
        """Goes on from saved ones."""
        self.peaks, self._counts = tuple(peaks), []

    def _by_optimizer(self) -> list[list[dict[str, Any]]]:
        found = (reference() for reference in self._optimizers)
        return [[group for group in optimizer.param_groups if "lr" in group] for optimizer in found if optimizer is not None]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for groups in self._by_optimizer() for group in groups]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_optimizers": []}  # a copy is told anew


def _mean(values: Sequence[float], groups: Sequence[Mapping[str, Any]]) -> float:
    if len(set(values)) == 1:
        return values[0]
    sizes = [sum(p.numel() for p in group["params"] if isinstance(p, Tensor)) for group in groups]
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / max(sum(sizes), 1)
