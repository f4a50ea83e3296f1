"""Which methods the sweep dominates.

A method is compared with each confirmed trial, seed by seed: runs of one seed share their start and their batches. One trial
has to do it: that for each seed *some* trial is better would be no news, with enough trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equipoise.metrics import spread
from equipoise.sweep.front import dominates

__all__ = ["Verdict", "judge"]

Points = Mapping[int, Sequence[float]]
"""Seed → point; lower is better in every entry."""


@dataclass(frozen=True)
class Verdict:
    """How a method stands against the confirmed trials.

    Attributes:
        by: the trial that comes closest to dominating the method: in the mean first, then on most seeds; empty if none
            dominates it on any seed.
        mean: whether that trial's mean dominates the method's mean.
        seeds: the seeds on which that trial dominates it.
        common: how many seeds both have.
        over: the trials whose means the method's mean dominates.
    """

    by: str
    mean: bool
    seeds: tuple[int, ...]
    common: int
    over: tuple[str, ...]

    @property
    def dominated(self) -> bool:
        """In the mean and on every seed."""
        return self.mean and 0 < len(self.seeds) == self.common

    def words(self, name: str) -> str:
        """One phrase; ``name`` is what :attr:`by` is called.

        Example:
            >>> Verdict("a", True, (0, 2), 3, ()).words("#4")
            'in the mean, by #4; on 2 of 3 seeds'
            >>> Verdict("", False, (), 3, ()).words("")
            'no'
        """
        if not self.by:
            return "no"
        on = f"{len(self.seeds)} of {self.common} seed{'s' * (self.common > 1)}"
        if self.dominated:
            return f"yes, by {name}: {on}, and the mean"
        return f"in the mean, by {name}; on {on}" if self.mean else f"not in the mean; on {on} by {name}"


def judge(method: Points, trials: Mapping[str, Points]) -> Verdict:
    """Compares one method with all confirmed trials.

    Example:
        >>> judge({0: (2, 2), 1: (3, 3)}, {"a": {0: (1, 1), 1: (2, 3)}, "b": {0: (5, 0), 1: (5, 0)}}).dominated
        True
    """
    best = Verdict("", False, (), max((len(set(own) & set(method)) for own in trials.values()), default=0), ())
    over = []
    rank = (False, 0, -math.inf)
    for label, own in trials.items():
        common = [seed for seed in method if seed in own]
        if not common:
            continue
        theirs, mine = _mean([own[seed] for seed in common]), _mean([method[seed] for seed in common])
        if dominates(mine, theirs):
            over.append(label)
        seeds = tuple(seed for seed in common if dominates(own[seed], method[seed]))
        mean = dominates(theirs, mine)
        place = (mean, len(seeds), -math.fsum(theirs))
        if (mean or seeds) and place > rank:
            best, rank = Verdict(label, mean, seeds, len(common), ()), place
    return Verdict(best.by, best.mean, best.seeds, best.common, tuple(over))


def _mean(points: Sequence[Sequence[float]]) -> list[float]:
    return [spread(column).mean for column in zip(*points, strict=True)]
