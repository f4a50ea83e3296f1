"""Which trials are confirmed on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipoise.sweep.front import spread_out

__all__ = ["select"]


def select(
    values: Mapping[int, float], points: Mapping[int, Sequence[float]], count: int, labels: Mapping[int, str]
) -> list[int]:
    """Picks trials: the best by the first objective, then those that span the validation Pareto front, then the next best.

    Args:
        values: trial → first objective; lower is better.
        points: trial → its place in the plane of the front; lower is better.
        count: how many.
        labels: trial → what it stands for; of equal ones the first is taken.

    Returns:
        Numbers of trials, in the order in which they were picked.

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
