"""Coloring of conflicts and affinity propagation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import equipoise as eq
from equipoise.solvers import affinity_propagation, color_greedily, conflicts_within, net_similarity


def test_colors_are_free_of_conflicts_and_few() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 12, 40):
        for density in (0.0, 0.3, 1.0):
            edges = np.triu(rng.random((size, size)) < density, 1)
            edges |= edges.T
            for coverage in (1, 3):
                groups = color_greedily(edges, coverage)
                assert conflicts_within(edges, groups) == 0
                assert len(groups) <= edges.sum(axis=1).max() + 1
                times = np.bincount([task for group in groups for task in group], minlength=size)
                assert times.min() >= 1
                if density == 0.0 or coverage == 1:
                    assert (times == 1).all()
    edges = np.zeros((3, 3), dtype=bool)
    edges[0, 1] = edges[1, 0] = True
    assert conflicts_within(edges, [[0, 1], [2]]) == 1
    with pytest.raises(eq.InputError, match="square"):
        color_greedily(np.zeros((2, 3), dtype=bool))


def test_vertices_of_higher_degree_choose_first() -> None:
    """Welsh and Powell's order: a star's center has the first color, all others the second."""
    edges = np.zeros((5, 5), dtype=bool)
    edges[3, [0, 1, 2, 4]] = edges[[0, 1, 2, 4], 3] = True
    assert color_greedily(edges) == [[3], [0, 1, 2, 4]]


def test_vertices_join_further_colors_as_in_the_released_code() -> None:
    """``welsh_powell_coloring`` and ``duplicate_min_coverage`` of SON-GOKU's repository give these colors."""
    edges = np.zeros((6, 6), dtype=bool)
    for one, other in ((0, 4), (0, 5), (1, 2), (2, 3), (2, 4), (3, 5)):
        edges[one, other] = edges[other, one] = True
    assert color_greedily(edges, 2) == [[0, 2], [1, 3, 4], [2, 5]]


def partitions(points: list[int]) -> Iterator[list[list[int]]]:
    if not points:
        yield []
        return
    for chosen in range(2 ** (len(points) - 1)):
        first = [points[0], *(point for place, point in enumerate(points[1:]) if chosen >> place & 1)]
        for others in partitions([point for point in points if point not in first]):
            yield [first, *others]


def test_messages_find_the_best_clusters_of_few_points() -> None:
    rng = np.random.default_rng(3)
    for _ in range(12):
        size = int(rng.integers(2, 6))
        similarities = rng.standard_normal((size, size))
        similarities = (similarities + similarities.T) / 2
        preference = float(np.median(similarities))
        found = affinity_propagation(similarities)
        assert found is not None
        best = max(net_similarity(similarities, groups, preference) for groups in partitions(list(range(size))))
        assert net_similarity(similarities, found, preference) == pytest.approx(best, abs=1e-9)


def test_clusters_are_those_of_scikit_learn() -> None:
    points = np.concatenate([np.random.default_rng(4).normal(center, 0.1, (6, 2)) for center in (0.0, 1.0, 3.0)])
    similarities = -((points[:, None] - points) ** 2).sum(axis=2)
    three, two = [[0, 6], [6, 12], [12, 18]], [[0, 12], [12, 18]]
    for preference, theirs in ((None, three), (-0.5, three), (-20.0, two)):  # AffinityPropagation of scikit-learn 1.9.1
        assert affinity_propagation(similarities, preference) == [list(range(*ends)) for ends in theirs]


def test_clusters_of_equal_similarities_and_of_one_point() -> None:
    equal = np.full((3, 3), 0.5)
    assert affinity_propagation(equal, 0.1) == [[0, 1, 2]]
    assert affinity_propagation(equal) == affinity_propagation(equal, 0.9) == [[0], [1], [2]]
    assert affinity_propagation(np.zeros((1, 1))) == [[0]]
    scaled = affinity_propagation(np.array([[0, 0.9, 0.1], [0.9, 0, 0.2], [0.1, 0.2, 0]]) * 1e-10, 0.3e-10)
    assert scaled == [[0, 1], [2]]
