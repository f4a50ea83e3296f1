"""Cases whose answer can be written down."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from equipoise import solvers
from tests.solvers.matrices import Array, ordinary

NORMS = np.array([0.5, 1.0, 3.0, 40.0])
ORTHOGONAL = np.diag(NORMS**2)


@pytest.mark.parametrize("square", [1e-20, 0.3, 4.0, 1e30])
def test_one_task(square: float) -> None:
    gramian = np.array([[square]])
    assert_allclose(solvers.minimum_norm_point(gramian), [1.0])
    assert_allclose(solvers.conflict_averse_weights(gramian, 0.4), [1.0])
    assert_allclose(solvers.conflict_averse_direction(gramian, 0.4), [1.4])
    assert_allclose(solvers.nash_bargaining(gramian), [square**-0.5])
    assert_allclose(solvers.equal_projections(gramian), [1.0])
    assert_allclose(solvers.project_conflicts(gramian, np.zeros((1, 0), dtype=int)), [1.0])
    for alpha in (0.1, 1.0, 2.0, 20.0):
        assert_allclose(solvers.fair_weights(gramian, alpha), [square ** (-alpha / (alpha + 1.0))])


def test_orthogonal_gradients() -> None:
    inverse = NORMS**-2.0
    assert_allclose(solvers.minimum_norm_point(ORTHOGONAL), inverse / inverse.sum())
    assert_allclose(solvers.nash_bargaining(ORTHOGONAL), 1.0 / NORMS)
    assert_allclose(solvers.equal_projections(ORTHOGONAL), (1.0 / NORMS) / (1.0 / NORMS).sum())
    assert_allclose(solvers.project_conflicts(ORTHOGONAL, solvers.random_orders(4, np.random.default_rng(0))), 1.0)
    for alpha in (0.1, 1.0, 3.0):
        assert_allclose(solvers.fair_weights(ORTHOGONAL, alpha), NORMS ** (-2.0 * alpha / (alpha + 1.0)))


@pytest.mark.parametrize("cosine", [-0.999, -0.3, 0.0, 0.4, 0.99])
@pytest.mark.parametrize("length", [0.01, 0.5, 1.0, 3.0, 1e8])
def test_two_tasks(cosine: float, length: float) -> None:
    gramian = np.array([[1.0, cosine * length], [cosine * length, length**2]])
    first = (length**2 - cosine * length) / (1.0 + length**2 - 2.0 * cosine * length)
    first = min(max(first, 0.0), 1.0)
    assert_allclose(solvers.minimum_norm_point(gramian), [first, 1.0 - first], atol=1e-12)
    # Nash: both lengths √Q_ii α_i are 1 / √(1 + cosine).
    both = 1.0 / np.sqrt(1.0 + cosine)
    assert_allclose(solvers.nash_bargaining(gramian), [both, both / length], rtol=1e-9)
    # Equal projections: the bisector of the two directions.
    assert_allclose(solvers.equal_projections(gramian), np.array([length, 1.0]) / (1.0 + length), rtol=1e-9)


def test_two_conflicting_tasks_after_surgery() -> None:
    gramian = np.array([[1.0, -1.0], [-1.0, 4.0]])
    # g_1 + g_2 / 4 and g_2 + g_1.
    assert_allclose(solvers.project_conflicts(gramian, [[1], [0]]), [2.0, 1.25])


def surgery(gradients: Array, orders: Array) -> Array:
    """PCGrad as its algorithm is written, on the gradients themselves."""
    total = np.zeros(gradients.shape[1])
    for task, order in enumerate(orders):
        current = gradients[task].copy()
        for other in order:
            product = current @ gradients[other]
            if product < 0.0:
                current -= product / (gradients[other] @ gradients[other]) * gradients[other]
        total += current
    return total


@pytest.mark.parametrize("tasks", [2, 3, 7, 20])
def test_surgery_in_coefficients_equals_surgery_on_gradients(tasks: int) -> None:
    generator = np.random.default_rng(tasks)
    for scale in (0.0, 2.0):
        gradients = generator.standard_normal((tasks, tasks + 3)) * np.exp(scale * generator.standard_normal((tasks, 1)))
        orders = solvers.random_orders(tasks, generator)
        found = solvers.project_conflicts(gradients @ gradients.T, orders) @ gradients
        assert_allclose(found, surgery(gradients, orders), rtol=1e-9, atol=1e-9 * np.abs(gradients).max())


def test_random_orders_are_permutations_and_reproducible() -> None:
    orders = solvers.random_orders(6, np.random.default_rng(1))
    for task, order in enumerate(orders):
        assert sorted(order.tolist()) == [other for other in range(6) if other != task]
    assert (orders == solvers.random_orders(6, np.random.default_rng(1))).all()
    firsts = {solvers.random_orders(6, np.random.default_rng(seed))[0, 0] for seed in range(60)}
    assert firsts == {1, 2, 3, 4, 5}
    assert solvers.random_orders(1, np.random.default_rng(1)).shape == (1, 0)


def test_no_radius_is_the_mean_gradient() -> None:
    gradients = ordinary(np.random.default_rng(0), 4)
    gramian = gradients @ gradients.T
    assert_allclose(solvers.conflict_averse_weights(gramian, 0.0), 0.25)
    assert_allclose(solvers.conflict_averse_direction(gramian, 0.0), 0.25)


def test_fairness_one_is_nash() -> None:
    gradients = ordinary(np.random.default_rng(0), 6)
    gramian = gradients @ gradients.T
    assert_allclose(solvers.fair_weights(gramian, 1.0), solvers.nash_bargaining(gramian), rtol=1e-13)
    assert_allclose(solvers.fair_weights(gramian, 1.0 + 1e-9), solvers.nash_bargaining(gramian), rtol=1e-7)


def test_large_fairness_favours_the_smallest_improvement() -> None:
    gradients = ordinary(np.random.default_rng(0), 6)
    gramian = gradients @ gradients.T
    worst = []
    for alpha in (0.2, 1.0, 5.0, 50.0):
        direction = solvers.fair_weights(gramian, alpha) @ gradients
        worst.append((gradients @ direction).min() / np.linalg.norm(direction))
    assert worst == sorted(worst)


def test_programmes_with_diagonal_matrices() -> None:
    assert_allclose(solvers.nonnegative_quadratic_program(np.diag([2.0, 4.0, 8.0]), [2.0, -3.0, 4.0]), [1.0, 0.0, 0.5])
    assert_allclose(solvers.simplex_quadratic_program(np.eye(3), np.zeros(3)), 1.0 / 3.0)
    assert_allclose(solvers.simplex_quadratic_program(np.eye(3), [0.0, 0.0, 5.0]), [0.5, 0.5, 0.0])
    # Without a quadratic term the cheapest variables share the weight.
    assert_allclose(solvers.simplex_quadratic_program(np.zeros((3, 3)), [1.0, 0.0, 0.0]), [0.0, 0.5, 0.5], atol=1e-9)
