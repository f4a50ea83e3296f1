"""Groups of tasks: colors of a graph of conflicts, and clusters by affinity propagation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError

__all__ = ["affinity_propagation", "color_greedily", "conflicts_within", "net_similarity"]

Array = NDArray[np.float64]
Groups = list[list[int]]


def color_greedily(conflicts: NDArray[np.bool_], coverage: int = 1) -> Groups:
    """Colors the vertices of a graph such that no edge joins two of one color (Welsh and Powell, 1967).

    Vertices are taken in the order of falling degree, of equal ones the first first; each gets the first color that none of its
    neighbours has. That takes at most one color more than the largest degree.

    Args:
        conflicts: the edges ``[K, K]``, symmetric; the diagonal does not count.
        coverage: in how many colors each vertex is to be: it joins further ones, in their order, that it has no edge to.

    Returns:
        The colors, each its vertices, ascending.

    Example:
        >>> edges = np.zeros((4, 4), dtype=bool)
        >>> edges[0, 1] = edges[1, 0] = edges[0, 2] = edges[2, 0] = True
        >>> color_greedily(edges), color_greedily(edges, coverage=2)
        ([[0, 3], [1, 2]], [[0, 3], [1, 2, 3]])
    """
    edges = _square(conflicts, "conflicts").astype(bool) & ~np.eye(len(conflicts), dtype=bool)
    groups: Groups = []
    for vertex in np.argsort(-edges.sum(axis=1), kind="stable").tolist():
        free = next((group for group in groups if not edges[vertex, group].any()), None)
        if free is None:
            groups.append(free := [])
        free.append(vertex)
    for vertex in [own for group in groups for own in sorted(group)]:
        lacking = coverage - 1
        for group in groups:
            if lacking > 0 and vertex not in group and not edges[vertex, group].any():
                group.append(vertex)
                lacking -= 1
    return [sorted(group) for group in groups]


def conflicts_within(conflicts: NDArray[np.bool_], groups: Groups) -> int:
    """How many edges join two vertices of one group: 0 for a coloring."""
    edges = np.asarray(conflicts, dtype=bool)
    return sum(int(np.triu(edges[np.ix_(group, group)], 1).sum()) for group in groups)


def affinity_propagation(
    similarities: Array, preference: float | None = None, *, damping: float = 0.5, iterations: int = 500, settled: int = 50
) -> Groups | None:
    """Clusters around exemplars by messages between points (Frey and Dueck, 2007).

        r(i,k) ← s(i,k) - max_{j≠k} (a(i,j) + s(i,j)),
        a(i,k) ← min(0, r(k,k) + Σ_{j≠i,k} max(0, r(j,k))),   a(k,k) ← Σ_{j≠k} max(0, r(j,k)),

    each mixed with its last value by the damping. Point k is an exemplar where r(k,k) + a(k,k) > 0; the others join the
    exemplar most similar to them.

    Args:
        similarities: s ``[K, K]``; the diagonal does not count.
        preference: s(k,k), the higher the more clusters; left out, the median of s, its diagonal included.
        damping: share of the last value, from 0.5 to below 1.
        iterations: at most.
        settled: for how many iterations the exemplars must stay the same.

    Returns:
        The clusters, each its points, ascending; ``None`` if the messages have not settled. Equal similarities give one cluster
        where the preference is below them, and one per point otherwise.

    Example:
        >>> affinity_propagation(np.array([[0.0, 0.9, 0.1], [0.9, 0.0, 0.2], [0.1, 0.2, 0.0]]), preference=0.3)
        [[0, 1], [2]]
    """
    s = _square(similarities, "similarities").astype(np.float64)
    count = len(s)
    own = float(np.median(s)) if preference is None else preference
    others = s[~np.eye(count, dtype=bool)]
    if count == 1 or np.ptp(others) == 0:
        return [list(range(count))] if count == 1 or own < others[0] else [[point] for point in range(count)]
    np.fill_diagonal(s, own)
    # Ties would let the messages swing for ever; the noise is the same each time, and of the last digit.
    s += np.finfo(float).eps * np.abs(s).max() * 10 * np.random.default_rng(0).standard_normal(s.shape)
    r, a, every = np.zeros_like(s), np.zeros_like(s), np.arange(count)
    before, unchanged = np.zeros(count, dtype=bool), 0
    for _ in range(iterations):
        total = a + s
        best = total.argmax(axis=1)
        first = total[every, best]
        total[every, best] = -np.inf
        received = s - first[:, None]
        received[every, best] = s[every, best] - total.max(axis=1)
        r = damping * r + (1 - damping) * received
        positive = np.maximum(r, 0.0)
        positive[every, every] = r[every, every]
        sent = positive.sum(axis=0)[None, :] - positive
        sent = np.where(np.eye(count, dtype=bool), sent, np.minimum(sent, 0.0))
        a = damping * a + (1 - damping) * sent
        exemplars = r.diagonal() + a.diagonal() > 0
        unchanged = unchanged + 1 if (exemplars == before).all() else 0
        before = exemplars
        if unchanged >= settled and exemplars.any():
            centers = np.flatnonzero(exemplars)
            for _ in range(2):  # within each cluster the point that is nearest to the rest, and everybody's choice anew
                joined = s[:, centers].argmax(axis=1)
                joined[centers] = np.arange(len(centers))
                clusters = [np.flatnonzero(joined == place) for place in range(len(centers))]
                centers = np.array([points[s[np.ix_(points, points)].sum(axis=0).argmax()] for points in clusters])
            return [cluster.tolist() for cluster in clusters]
    return None


def net_similarity(similarities: Array, groups: Groups, preference: float) -> float:
    """What affinity propagation seeks the most of: Σ s(i, exemplar of i's group), and the preference once per group.

    Each group's exemplar is its best. No grouping has more than the maximum over all of them.
    """
    s = np.array(similarities, dtype=np.float64)
    np.fill_diagonal(s, preference)
    return float(sum(s[np.ix_(group, group)].sum(axis=0).max() for group in groups))


def _square(matrix: NDArray[np.generic], what: str) -> NDArray[np.generic]:
    matrix = np.array(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InputError(f"{what} must be a square matrix of at least one row; got the shape {list(matrix.shape)}")
    return matrix
