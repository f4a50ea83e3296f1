"""Agreement with a general convex solver on random well-conditioned problems."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from equipoise import solvers
from tests.solvers.matrices import Array, ordinary


@pytest.fixture(params=[(0, 2), (1, 3), (2, 5), (3, 8), (4, 15)], ids=lambda case: f"{case[1]} tasks")
def gradients(request: pytest.FixtureRequest) -> Array:
    seed, tasks = request.param
    return ordinary(np.random.default_rng(seed), tasks)


def minimize(objective: Any, variable: Any, *constraints: Any, gap: float = 1e-11) -> Array:
    problem = cp.Problem(cp.Minimize(objective), list(constraints))
    # The default gap of 1e-8 leaves errors of its square root in the solution.
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=gap, tol_gap_rel=gap, tol_feas=gap)
    return np.asarray(variable.value, dtype=np.float64)


def distance(gradients: Array, found: Array, expected: Array) -> float:
    """Length of the difference of two combinations, relative to the second."""
    return float(np.linalg.norm((found - expected) @ gradients) / np.linalg.norm(expected @ gradients))


def test_minimum_norm_point(gradients: Array) -> None:
    weights = cp.Variable(len(gradients), nonneg=True)
    expected = minimize(cp.sum_squares(gradients.T @ weights), weights, cp.sum(weights) == 1)
    assert distance(gradients, solvers.minimum_norm_point(gradients @ gradients.T), expected) < 1e-5


def test_distance_from_pareto_stationarity(gradients: Array) -> None:
    weights = cp.Variable(len(gradients), nonneg=True)
    found = solvers.pareto_distance(gradients @ gradients.T, relative=False)
    minimize(cp.sum_squares(gradients.T @ weights), weights, cp.sum(weights) == 1)
    assert found == pytest.approx(float(np.linalg.norm(gradients.T @ weights.value)), rel=1e-6)
    # Relative, it is the same of the gradients' directions, whatever the units of the losses.
    directions = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    own = solvers.pareto_distance(directions @ directions.T, relative=False)
    units = np.geomspace(1e-6, 1e6, len(gradients))[:, None] * gradients
    assert solvers.pareto_distance(units @ units.T) == pytest.approx(own, rel=1e-6)


def test_pareto_stationary_points_are_at_no_distance() -> None:
    gradients = np.array([[3.0, 0.0], [0.0, 500.0], [-1.0, -1.0]])
    assert solvers.pareto_distance(gradients @ gradients.T) < 1e-6
    assert solvers.pareto_distance([[0.0, 0.0], [0.0, 4.0]]) == 0.0
    assert solvers.pareto_distance([[9.0]]) == 1.0


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9, 2.0])
def test_conflict_averse_direction(gradients: Array, c: float) -> None:
    """The primal problem of the paper: the best worst-case improvement within a ball around the mean gradient."""
    mean = gradients.mean(axis=0)
    direction, worst = cp.Variable(gradients.shape[1]), cp.Variable()
    expected = minimize(
        -worst, direction, gradients @ direction >= worst, cp.norm(direction - mean) <= c * np.linalg.norm(mean), gap=1e-9
    )
    found = solvers.conflict_averse_direction(gradients @ gradients.T, c) @ gradients
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)
    assert (gradients @ found).min() >= (gradients @ expected).min() - 1e-6 * np.linalg.norm(expected)


def test_nash_bargaining(gradients: Array) -> None:
    alpha = cp.Variable(len(gradients))
    expected = minimize(0.5 * cp.sum_squares(gradients.T @ alpha) - cp.sum(cp.log(alpha)), alpha)
    assert distance(gradients, solvers.nash_bargaining(gradients @ gradients.T), expected) < 1e-5


@pytest.mark.parametrize("alpha", [0.5, 2.0, 3.0])
def test_fair_weights(gradients: Array, alpha: float) -> None:
    weights = cp.Variable(len(gradients))
    power = 1.0 - 1.0 / alpha
    utility = cp.sum(cp.power(weights, power)) / power
    expected = minimize(0.5 * cp.sum_squares(gradients.T @ weights) - utility, weights, gap=1e-8)
    assert distance(gradients, solvers.fair_weights(gradients @ gradients.T, alpha), expected) < 1e-4


def test_programmes(gradients: Array) -> None:
    generator = np.random.default_rng(9)
    gramian = gradients @ gradients.T
    linear = generator.standard_normal(len(gramian)) * gramian.diagonal().mean()
    variable = cp.Variable(len(gramian), nonneg=True)
    square = 0.5 * cp.sum_squares(gradients.T @ variable)
    expected = minimize(square - linear @ variable, variable)
    found = solvers.nonnegative_quadratic_program(gramian, linear)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    expected = minimize(square + linear @ variable, variable, cp.sum(variable) == 1)
    assert np.linalg.norm(solvers.simplex_quadratic_program(gramian, linear) - expected) < 1e-5
