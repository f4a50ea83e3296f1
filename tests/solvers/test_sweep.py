"""Every solver on thousands of ordinary and adversarial matrices: finite, within tolerance, without warnings."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from equipoise import solvers
from tests.solvers.matrices import Array, gramians, ordinary

Case = tuple[str, Array]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    generator = np.random.default_rng(20)
    small = [case for _ in range(2) for case in gramians(generator, (1, 2, 3, 5, 11))]
    large = list(gramians(generator, (40,)))[::2] + list(gramians(generator, (100,)))[::8]
    plain = []
    for tasks in (1, 2, 3, 4, 7, 16, 40):
        for _ in range(20):
            gradients = ordinary(generator, tasks)
            plain.append((f"ordinary, {tasks} tasks", gradients @ gradients.T))
    return small + large + plain


def simplex_linear(gramian: Array) -> Array:
    return np.asarray(-gramian[:, 0])


SOLVERS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], float], float]] = {
    "minimum norm": (solvers.minimum_norm_point, solvers.minimum_norm_residual, 1e-10),
    "Nash": (solvers.nash_bargaining, solvers.nash_residual, 1e-12),
    "equal projections": (solvers.equal_projections, solvers.equal_projections_residual, 1e-12),
    **{
        f"conflict averse, c = {c}": (
            lambda gramian, c=c: solvers.conflict_averse_weights(gramian, c),
            lambda gramian, weights, c=c: solvers.conflict_averse_residual(gramian, c, weights),
            1e-8,
        )
        for c in (0.2, 0.9, 3.0)
    },
    **{
        f"fair, alpha = {alpha}": (
            lambda gramian, alpha=alpha: solvers.fair_weights(gramian, alpha),
            lambda gramian, weights, alpha=alpha: solvers.fair_residual(gramian, alpha, weights),
            1e-10,
        )
        for alpha in (0.1, 0.5, 2.0, 20.0)
    },
    "cone": (lambda gramian: solvers.conic_weights(gramian, 0.6), lambda q, w: solvers.conic_residual(q, 0.6, w), 1e-6),
    "Krum": (lambda gramian: solvers.krum_weights(gramian, 1), lambda q, w: solvers.krum_residual(q, 1, w), 0.0),
    "non-negative programme": (
        lambda gramian: solvers.nonnegative_quadratic_program(gramian, -gramian[0]),
        lambda gramian, solution: solvers.nonnegative_residual(gramian, -gramian[0], solution),
        1e-10,
    ),
    "simplex programme": (
        lambda gramian: solvers.simplex_quadratic_program(gramian, simplex_linear(gramian)),
        lambda gramian, weights: solvers.simplex_residual(gramian, simplex_linear(gramian), weights),
        1e-10,
    ),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_residual_is_within_the_stated_tolerance(name: str, cases: list[Case]) -> None:
    solve, residual, tolerance = SOLVERS[name]
    assert len(cases) > 2500
    some = {"fair": 2, "Nash": 2, "cone": 8, "Krum": 8}
    for case, gramian in cases[:: some.get(re.split("[ ,]", name)[0], 1)]:
        weights = solve(gramian)
        assert weights.shape == (gramian.shape[0],)
        assert weights.dtype == np.float64
        assert np.isfinite(weights).all(), case
        assert residual(gramian, weights) <= tolerance, case


def test_directions_are_finite(cases: list[Case]) -> None:
    generator = np.random.default_rng(3)
    for place, (case, gramian) in enumerate(cases):
        tasks = gramian.shape[0]
        found = [
            solvers.conflict_averse_direction(gramian, 0.4),
            solvers.project_conflicts(gramian, solvers.random_orders(tasks, generator)),
        ]
        if place % 8 == 0:
            parts = solvers.orthogonal_parts(gramian)
            assert solvers.orthogonal_parts_residual(gramian, parts) <= 1e-8, case
            found += [*parts, solvers.imbalance_direction(gramian, 0.8), solvers.conic_direction(gramian, 0.6)]
            found += [solvers.intervened_weights(gramian, np.zeros_like(gramian))]
        for coefficients in found:
            assert coefficients.shape == (tasks,)
            assert np.isfinite(coefficients).all(), case


@pytest.mark.parametrize("alpha", [1e-2, 0.03, 1.5, 7.0, 100.0, 1000.0])
def test_any_fairness(alpha: float, cases: list[Case]) -> None:
    for case, gramian in cases[::7]:
        weights = solvers.fair_weights(gramian, alpha)
        assert np.isfinite(weights).all(), case
        assert solvers.fair_residual(gramian, alpha, weights) <= 1e-10, case


def test_residuals_notice_errors(cases: list[Case]) -> None:
    """A residual that is always small would make the tests above empty."""
    generator = np.random.default_rng(4)
    for name, (solve, residual, _) in SOLVERS.items():
        for tasks in (2, 5, 11):
            gradients = ordinary(generator, tasks)
            gramian = gradients @ gradients.T
            wrong = solve(gramian) + 1e-3 * np.arange(1, tasks + 1) / np.sqrt(np.diag(gramian)).min()
            assert residual(gramian, wrong) > 1e-6, name


def test_equations_hold_themselves_without_cancellation() -> None:
    """On ordinary matrices the defining equations are met as they are written, without any normalisation."""
    generator = np.random.default_rng(5)
    for tasks in (1, 2, 3, 5, 11, 40, 100):
        for _ in range(10):
            gradients = ordinary(generator, tasks)
            gramian = gradients @ gradients.T
            alpha = solvers.nash_bargaining(gramian)
            assert np.abs(alpha * (gramian @ alpha) - 1.0).max() < 1e-12
            for fairness in (0.3, 2.0, 10.0):
                weights = solvers.fair_weights(gramian, fairness)
                assert np.abs(weights ** (1.0 / fairness) * (gramian @ weights) - 1.0).max() < 1e-12
            projections = gramian @ solvers.equal_projections(gramian) / np.sqrt(gramian.diagonal())
            assert np.ptp(projections) < 1e-11 * np.abs(projections).max()
            minimum = solvers.minimum_norm_point(gramian)
            square = minimum @ gramian @ minimum
            assert (gramian @ minimum).min() > square * (1.0 - 1e-11)
