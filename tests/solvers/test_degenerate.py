"""The documented answers where the textbook problem has none, or more than one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from equipoise import solvers
from tests.solvers.matrices import ordinary

OPPOSED = np.array([[1.0, -1.0], [-1.0, 1.0]])


def test_all_gradients_zero() -> None:
    gramian = np.zeros((3, 3))
    assert_allclose(solvers.minimum_norm_point(gramian), 1.0 / 3.0)
    assert_allclose(solvers.conflict_averse_weights(gramian, 0.4), 1.0 / 3.0)
    assert_allclose(solvers.conflict_averse_direction(gramian, 0.4), 1.0 / 3.0)
    assert_allclose(solvers.equal_projections(gramian), 1.0 / 3.0)
    assert_allclose(solvers.nash_bargaining(gramian), 0.0)
    assert_allclose(solvers.fair_weights(gramian, 2.0), 0.0)
    assert_allclose(solvers.project_conflicts(gramian, [[1, 2], [0, 2], [0, 1]]), 1.0)
    assert_allclose(solvers.nonnegative_quadratic_program(gramian, [1.0, -1.0, 0.0]), 0.0)


def test_zero_gradients_do_not_disturb_the_others() -> None:
    gradients = ordinary(np.random.default_rng(2), 4)
    with_zeros = np.insert(gradients, [1, 3], 0.0, axis=0)
    kept = [0, 2, 3, 5]
    gramian, larger = gradients @ gradients.T, with_zeros @ with_zeros.T
    for solve in (
        solvers.nash_bargaining,
        solvers.equal_projections,
        lambda gramian: solvers.fair_weights(gramian, 2.0),
        lambda gramian: solvers.fair_weights(gramian, 0.3),
    ):
        assert_allclose(solve(larger)[kept], solve(gramian), rtol=1e-12)
        assert_allclose(solve(larger)[[1, 4]], 0.0)
    assert_allclose(solvers.minimum_norm_point(larger), [0.0, 0.5, 0.0, 0.0, 0.5, 0.0])


def test_zero_gradient_in_the_conflict_averse_problem() -> None:
    agreeing = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    # No combination points away from the mean, so nothing is better than the zero gradient, and d = g_0.
    assert_allclose(solvers.conflict_averse_weights(agreeing, 0.5), [0.0, 0.0, 1.0])
    assert_allclose(solvers.conflict_averse_direction(agreeing, 0.5), 1.0 / 3.0)
    conflicting = np.array([[1.0, -5.0, 0.0], [-5.0, 36.0, 0.0], [0.0, 0.0, 0.0]])
    weights = solvers.conflict_averse_weights(conflicting, 0.1)
    assert weights[2] == 0.0
    assert solvers.conflict_averse_residual(conflicting, 0.1, weights) < 1e-10
    assert solvers.conflict_averse_residual(conflicting, 0.1, [0.0, 0.0, 1.0]) > 0.1
    assert solvers.conflict_averse_residual(agreeing, 0.5, [0.5, 0.5, 0.0]) > 0.1


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e15])
def test_exactly_opposed_pair(scale: float) -> None:
    # Both have length 1 in units of the first, and cancel.
    norms = np.array([1.0, scale])
    gramian = OPPOSED * norms[:, None] * norms
    alpha = solvers.nash_bargaining(gramian) * norms
    assert_allclose(alpha[0], alpha[1], rtol=1e-9)
    assert_allclose(alpha, 1e5, rtol=1e-3)
    assert alpha @ OPPOSED @ alpha <= 2.0
    assert_allclose(solvers.minimum_norm_point(gramian) * norms / (norms[0] * norms[1]), 1.0 / norms.sum(), rtol=1e-6)
    assert_allclose(solvers.equal_projections(gramian), (1.0 / norms) / (1.0 / norms).sum(), rtol=1e-6)
    assert_allclose(solvers.project_conflicts(gramian, [[1], [0]]) * norms, [1.0 + scale, 1.0 + scale], rtol=1e-9)


@pytest.mark.parametrize("c", [1.0, 1.5, 30.0])
def test_conflict_averse_direction_where_gradients_cancel(c: float) -> None:
    """Pareto-stationary with a mean that is not zero: the only direction in the ball that no task loses from is 0."""
    gradients = np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -5.0]])
    coefficients = solvers.conflict_averse_direction(gradients @ gradients.T, c)
    assert np.abs(coefficients).max() < 1e5 * c
    assert_allclose(coefficients @ gradients, 0.0, atol=1e-4)
    # A third dimension without conflict leaves a direction that all can agree on.
    free = np.column_stack([gradients, np.zeros(4)])
    free[2:, 2] = 1.0
    direction = solvers.conflict_averse_direction(free @ free.T, c) @ free
    assert direction[2] > 0.1
    assert (free @ direction).min() > -1e-3


def test_equal_tasks_get_equal_weights() -> None:
    gradients = ordinary(np.random.default_rng(5), 4)[[0, 1, 1, 2, 3, 1, 0]]
    gramian = gradients @ gradients.T
    for solve in (
        solvers.minimum_norm_point,
        solvers.nash_bargaining,
        solvers.equal_projections,
        lambda gramian: solvers.conflict_averse_weights(gramian, 0.4),
        lambda gramian: solvers.fair_weights(gramian, 3.0),
        lambda gramian: solvers.simplex_quadratic_program(gramian, -gramian.mean(axis=0)),
    ):
        weights = solve(gramian)
        scale = np.abs(weights).max()
        assert_allclose(weights[[1, 2, 5]], weights[1], atol=1e-4 * scale)
        assert_allclose(weights[[0, 6]], weights[0], atol=1e-4 * scale)


def test_equal_projections_without_a_sum() -> None:
    # C⁻¹ 1 divided by the norms sums to zero for these norms, so Σ w = 1 is out of reach.
    gradients = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.8, 0.6, 0.0]])
    cosines = gradients @ gradients.T + 1e-3 * np.eye(3)
    cosines /= np.sqrt(np.outer(cosines.diagonal(), cosines.diagonal()))
    lengths = np.linalg.solve(cosines, np.ones(3))
    assert lengths.min() < 0.0 < lengths.max()
    negative = lengths < 0.0
    norms = np.where(negative, 1.0, lengths[~negative].sum() / -lengths[negative].sum())
    gramian = cosines * norms[:, None] * norms
    weights = solvers.equal_projections(gramian)
    assert_allclose(np.abs(weights).sum(), 1.0)
    projections = gramian @ weights / norms
    assert (projections > 0.0).all()
    assert_allclose(projections, projections[0], rtol=1e-9)
    assert solvers.equal_projections_residual(gramian, weights) < 1e-12


def test_ridge_is_zero_for_ordinary_matrices_and_continuous() -> None:
    gradients = ordinary(np.random.default_rng(1), 12)
    assert solvers.scale_gramian(gradients @ gradients.T).ridge == 0.0
    singular = solvers.scale_gramian(np.ones((12, 12)))
    assert_allclose(singular.ridge, 1e-10, rtol=1e-2)
    previous = 0.0
    for smallest in np.linspace(1e-10, -1e-10, 41):
        ridge = solvers.scale_gramian([[1.0, 1.0 - smallest], [1.0 - smallest, 1.0]]).ridge
        assert_allclose(ridge, max(0.0, 1e-10 - 2.0 * smallest), atol=1e-15)
        assert 0.0 <= ridge - previous <= 1.1e-11
        previous = ridge
    # Noise of single precision is lifted out of by twice its size.
    noisy = solvers.scale_gramian([[1.0, 1.0 + 1e-7], [1.0 + 1e-7, 1.0]])
    assert_allclose(noisy.ridge, 2e-7 + 1e-10, rtol=1e-6)


def test_not_a_gramian_at_all() -> None:
    """Whatever finite matrix comes in, a finite answer comes out."""
    generator = np.random.default_rng(8)
    for _ in range(50):
        matrix = generator.standard_normal((5, 5)) * 10.0 ** generator.uniform(-5, 5)
        for solve in (
            solvers.minimum_norm_point,
            solvers.nash_bargaining,
            solvers.equal_projections,
            lambda gramian: solvers.conflict_averse_direction(gramian, 0.4),
            lambda gramian: solvers.fair_weights(gramian, 2.0),
            lambda gramian: solvers.project_conflicts(gramian, solvers.random_orders(5, np.random.default_rng(0))),
            lambda gramian: solvers.nonnegative_quadratic_program(gramian, gramian[0]),
            lambda gramian: solvers.simplex_quadratic_program(gramian, gramian[0]),
        ):
            assert np.isfinite(solve(matrix)).all()
