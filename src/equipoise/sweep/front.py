"""Domination, Pareto fronts, hypervolume, which trials are confirmed on fresh seeds, and which methods they dominate.

A method is compared with each confirmed trial, seed by seed: runs of one seed share their start and their batches. One trial
has to do it: that for each seed *some* trial is better would be no news, with enough trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from equipoise.metrics import spread
from equipoise.metrics.metric import mean as mean_of

__all__ = ["Verdict", "dominates", "hypervolume", "judge", "pareto", "select", "spread_out"]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point is nowhere worse than another and somewhere better; ``nan`` neither dominates nor is dominated.

    Example:
        >>> dominates([1, 2], [1, 3]), dominates([1, 2], [1, 2]), dominates([0, 4], [1, 2])
        (True, False, False)
    """
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def pareto(points: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points that no other one dominates, in the order given; points with ``nan`` are left out.

    Example:
        >>> pareto([[1, 3], [2, 2], [3, 3], [3, 1]])
        [0, 1, 3]
    """
    finite = [position for position, point in enumerate(points) if np.isfinite(point).all()]
    return [own for own in finite if not any(dominates(points[other], points[own]) for other in finite)]


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """The volume dominated by at least one of the points ``[n, d]`` that dominates the reference point ``[d]`` (pymoo's).

    Example:
        >>> hypervolume([[0, 2], [1, 1], [2, 0]], [3, 3])
        6.0
    """
    from pymoo.indicators.hv import HV

    rows = np.asarray(points, dtype=np.float64).reshape(-1, len(reference))
    inside = rows[np.isfinite(rows).all(axis=1) & (rows < np.asarray(reference)).all(axis=1)]
    return float(HV(ref_point=np.asarray(reference, dtype=np.float64))(inside)) if len(inside) else 0.0


def spread_out(points: Sequence[Sequence[float]], count: int) -> list[int]:
    """Picks at most ``count`` points of the Pareto front, each time the one that adds most hypervolume to those picked.

    Returns:
        Their positions, in the order in which they were picked. The reference point is the worst value of each column
        on the front, moved outwards by the front's extent, so that its ends count.

    Example:
        >>> spread_out([[0, 10], [4.9, 5], [5, 4.9], [10, 0], [11, 11]], 3)
        [1, 3, 0]
    """
    front = pareto(points)
    if not front:
        return []
    rows = np.array([points[own] for own in front], dtype=np.float64)
    extent = rows.max(axis=0) - rows.min(axis=0)
    scaled = (rows - rows.min(axis=0)) / np.where(extent > 0, extent, 1.0)
    picked: list[int] = []
    while len(picked) < min(count, len(front)):
        left = [own for own in range(len(front)) if own not in picked]
        volumes = [hypervolume(scaled[[*picked, own]], [2.0] * rows.shape[1]) for own in left]
        picked.append(left[int(np.argmax(volumes))])
    return [front[own] for own in picked]


def select(
    values: Mapping[int, float], points: Mapping[int, Sequence[float]], count: int, labels: Mapping[int, str]
) -> list[int]:
    """Picks trials: the best by the first objective, then those that span the validation Pareto front, then the next best.

    For objective and front lower is better; of trials with one label, which stand for the same, the first is taken.

    Example:
        >>> values, points = {0: 3.0, 1: 1.0, 2: 2.0, 3: 2.5}, {0: [0, 9], 1: [5, 5], 2: [6, 6], 3: [9, 0]}
        >>> select(values, points, 3, {0: "a", 1: "b", 2: "c", 3: "d"})
        [1, 0, 3]
    """
    first: dict[str, int] = {}
    for number in values:
        first.setdefault(labels[number], number)
    numbers = list(first.values())
    best = sorted(numbers, key=lambda number: values[number])
    front = [numbers[own] for own in spread_out([points[number] for number in numbers], len(numbers))]
    return list(dict.fromkeys([best[0], *front, *best]))[:count]


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
        place = (mean, len(seeds), -mean_of(theirs))
        if (mean or seeds) and place > rank:
            best, rank = Verdict(label, mean, seeds, len(common), ()), place
    return Verdict(best.by, best.mean, best.seeds, best.common, tuple(over))


def _mean(points: Sequence[Sequence[float]]) -> list[float]:
    return [spread(column).mean for column in zip(*points, strict=True)]
