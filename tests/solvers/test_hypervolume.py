"""Weights by the gradient of the hypervolume."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.pareto import hypervolume
from equipoise.solvers import hypervolume_residual, hypervolume_weights, ranks


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_weights_are_the_slopes_of_the_hypervolume(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    for scale in (1e-6, 1.0, 1e9):
        points, reference = rng.random((7, tasks)) * scale, np.full(tasks, 0.9 * scale)
        weights = hypervolume_weights(points, reference)
        volume = hypervolume(points / scale, reference / scale)
        for i in range(len(points)):
            for k in range(tasks):
                moved = points / scale
                moved[i, k] -= 1e-7
                slope = (hypervolume(moved, reference / scale) - volume) / 1e-7
                assert weights[i, k] / scale ** (tasks - 1) == pytest.approx(slope, abs=1e-5)
        assert hypervolume_residual(points, reference, weights) < 1e-12
        assert hypervolume_residual(points, reference, 1.01 * weights) == pytest.approx(0.01)


def test_weights_of_the_released_code() -> None:
    """Numbers of ``grad_multi_sweep_with_duplicate_handling`` (timodeist/multi_objective_learning), for points twice too."""
    points = np.array([[0.2, 0.9, 0.5], [0.6, 0.3, 0.4], [0.5, 0.8, 0.1], [0.6, 0.3, 0.4], [0.7, 0.95, 0.6]])
    theirs = [[0.08, 0.12, 0.06], [0.25, 0.2, 0.2], [0.16, 0.2, 0.15], [0.25, 0.2, 0.2], [0.0, 0.0, 0.0]]
    assert hypervolume_weights(points, np.array([1.0, 1.1, 0.9])) == pytest.approx(np.array(theirs), abs=1e-12)


def test_dominated_points_points_beyond_and_single_ones() -> None:
    assert hypervolume_weights(np.array([[1.0, 1.0], [2.0, 2.0], [0.5, 4.0]]), np.array([3.0, 3.0])).tolist() == [
        [2.0, 2.0],
        [0.0, 0.0],
        [0.0, 0.0],
    ]
    assert hypervolume_weights(np.array([[2.0], [1.0]]), np.array([3.0])).tolist() == [[0.0], [1.0]]
    # Points that share a coordinate divide what lies beyond it, so that nothing counts twice.
    shared = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert hypervolume_residual(shared, np.full(3, 2.0), hypervolume_weights(shared, np.full(3, 2.0))) < 1e-12
    with pytest.raises(eq.InputError, match="reference"):
        hypervolume_weights(np.zeros((2, 3)), np.zeros(2))


def test_ranks_peel_fronts_off() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 5, (30, 3)).astype(float)
    found = ranks(points)
    for rank in range(found.max() + 1):
        front, beyond = points[found == rank], points[found > rank]
        for row in front:
            assert not any((other <= row).all() and (other < row).any() for other in front)
        for row in beyond:
            assert any((other <= row).all() and (other < row).any() for other in front)
