"""Grouping numbers on a line: k-means in one dimension, solved exactly.

In one dimension every group of an optimal grouping is an interval of the sorted values, so the best grouping is a shortest
path, which dynamic programming finds; there is nothing to initialise and nothing to restart. Spreads of intervals are added
up from squared distances of pairs, which are never negative: nothing cancels, whatever the scales of the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_array, read_number

__all__ = ["group_values", "grouping_cost"]


def group_values(values: ArrayLike, groups: int) -> NDArray[np.intp]:
    """Splits numbers into at most g groups with the least sum of squared distances from the groups' means.

    The optimum is exact (Wang and Song, 2011, "Ckmeans.1d.dp: optimal k-means clustering in one dimension by dynamic
    programming"). It takes O(g n²) operations for n values, and O(n) for two groups once they are sorted. Equal values are
    always in one group, so there are fewer than g groups where there are fewer distinct values. Among equally good groupings
    the one whose upper groups reach down furthest is taken, so the answer does not depend on the order of the values.

    Args:
        values: n numbers.
        groups: g, at least 1.

    Returns:
        The group of each value [n], counted from 0 and from the smallest values.

    Raises:
        InputError: the values are no vector, are none, or are not finite; or there are no groups.

    Example:
        >>> group_values([1.0, 9.0, 1.5, 8.0], 2).tolist()
        [0, 1, 0, 1]
    """
    given = read_array(values, "the values")
    if given.ndim != 1 or given.size == 0:
        raise InputError(f"the values have shape {given.shape}; expected [n] with n ≥ 1")
    groups = int(read_number(groups, "the number of groups", 1, whole=True))
    size = given.size
    if groups == 1:
        if not np.isfinite(given).all():
            raise InputError("the values have an entry that is infinite or not a number")
        return np.zeros(size, dtype=np.intp)
    order = given.argsort(kind="stable")
    line = given[order]
    # Sorting puts what is not a number last, and what is infinite at an end.
    if not (np.isfinite(line[0]) and np.isfinite(line[-1])):
        raise InputError("the values have an entry that is infinite or not a number")
    step = line[1:] > line[:-1]
    distinct = int(np.count_nonzero(step)) + 1
    labels = np.zeros(size, dtype=np.intp)
    if distinct == size:
        starts = _starts(line, None, groups) if groups < size else np.arange(1, size)
        labels[starts] = 1
    else:
        heads = np.concatenate([[0], step.nonzero()[0] + 1])
        counts = np.diff(heads, append=size).astype(np.float64)
        starts = _starts(line[heads], counts, groups) if groups < distinct else np.arange(1, distinct)
        labels[heads[starts]] = 1
    found = np.empty(size, dtype=np.intp)
    found[order] = labels.cumsum()
    return found


def grouping_cost(values: ArrayLike, labels: ArrayLike) -> float:
    """The sum of squared distances of the values from the means of their groups.

    Example:
        >>> grouping_cost([1.0, 3.0, 7.0], [0, 0, 1])
        2.0
    """
    given, groups = read_array(values, "the values"), np.asarray(labels)
    return float(sum(np.square(part - part.mean()).sum() for part in (given[groups == group] for group in np.unique(groups))))


def _starts(line: Array, counts: Array | None, groups: int) -> NDArray[np.intp]:
    """Where the second, third … group start among sorted distinct values with multiplicities."""
    size = line.size
    line = line / max(abs(float(line[0])), abs(float(line[-1])))
    if groups == 2:
        return _start_of_two(line, counts)
    spreads = _spreads(line, counts)
    # best[j]: the least cost of grouping the values before j into so many groups as there are layers.
    best = np.full(size + 1, np.inf)  # best[0] stays infinite: no group may be empty
    best[1:] = spreads[0]
    layers: list[NDArray[np.intp]] = []
    for _ in range(groups - 2):
        through = best[:size, None] + spreads
        start = through.argmin(axis=0)
        layers.append(start)
        best[1:] = through[start, np.arange(size)]
    starts = np.empty(groups - 1, dtype=np.intp)
    starts[-1] = end = int((best[:size] + spreads[:, -1]).argmin())
    for layer in range(groups - 3, -1, -1):
        starts[layer] = end = int(layers[layer][end - 1])
    return starts


def _start_of_two(line: Array, counts: Array | None) -> NDArray[np.intp]:
    """The cut of the sorted values that sets the means of its sides furthest apart: O(n), for this case is the usual one.

    The costs of both sides and n₁n₂/n (mean₂ − mean₁)² add up to the same for all cuts.
    """
    masses = np.ones(line.size) if counts is None else counts
    moments = masses * (line - line[0])  # none is negative, so that no sum cancels
    below, above = masses.cumsum()[:-1], masses[::-1].cumsum()[-2::-1]
    apart = moments[::-1].cumsum()[-2::-1] / above - moments.cumsum()[:-1] / below
    return np.array([1 + int((below * above * np.square(apart)).argmax())])


def _spreads(line: Array, counts: Array | None) -> Array:
    """Σ (x − mean)² of every interval [i, j] of the sorted values, infinite below the diagonal."""
    size = line.size
    pairs = np.subtract.outer(line, line)
    np.square(pairs, out=pairs)
    if counts is not None:
        pairs *= counts[:, None] * counts
    # Row i of the reversed running sum: distances of value j from all of i … j; its running sum: those of all pairs.
    places = np.arange(size)
    pairs[places[:, None] >= places] = 0.0
    sums = pairs[::-1].cumsum(axis=0)[::-1].cumsum(axis=1)
    before = np.arange(size, dtype=np.float64) if counts is None else counts.cumsum() - counts
    within = before + (1.0 if counts is None else counts) - before[:, None]
    upper = within > 0
    spreads = np.full((size, size), np.inf)
    np.divide(sums, within, out=spreads, where=upper)
    return spreads
