"""FORUM's dual: optimality conditions on random and adversarial matrices, agreement with CVXPY, closed forms."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.errors import InputError
from equipoise.solvers import (
    constrained_descent,
    constrained_descent_residual,
    constraint_multiplier,
    minimum_norm_point,
    printed_constrained_descent,
)

KINDS = ("ordinary", "mixed scales", "along the constraint", "against the constraint", "all alike", "a zero gradient")


def gradients(kind: str, objectives: int, dimension: int, seed: int) -> np.ndarray:
    """Rows g_1 … g_m and, last, c."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(objectives, dimension))
    constraint = generator.normal(size=dimension) * 10.0 ** generator.uniform(-4, 4)
    if kind == "mixed scales":
        rows *= 10.0 ** generator.uniform(-6, 6, size=(objectives, 1))
    elif kind == "along the constraint":
        constraint = 3.0 * rows[0]
    elif kind == "against the constraint":
        constraint = -rows.sum(0)
    elif kind == "all alike":
        rows = constraint + 1e-6 * rows
    elif kind == "a zero gradient":
        rows[objectives // 2] = 0.0
    return np.vstack([rows, constraint])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    objectives=st.integers(1, 12),
    dimension=st.integers(1, 30),
    share=st.sampled_from([0.0, 0.15, 0.5, 10.0]),
    seed=st.integers(0, 10**6),
)
def test_satisfies_the_optimality_conditions(kind: str, objectives: int, dimension: int, share: float, seed: int) -> None:
    rows = gradients(kind, objectives, dimension, seed)
    gramian = rows @ rows.T
    phi = share * gramian[-1, -1]
    weights, multiplier = constrained_descent(gramian, phi)
    assert constrained_descent_residual(gramian, phi, weights, multiplier) <= 1e-8
    assert constraint_multiplier(gramian, weights, phi) == pytest.approx(multiplier, rel=1e-6, abs=1e-9 * (1 + multiplier))


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_cvxpy_on_the_primal(seed: int) -> None:
    generator = np.random.default_rng(seed)
    objectives, dimension = int(generator.integers(1, 6)), int(generator.integers(2, 9))
    rows = generator.normal(size=(objectives + 1, dimension))
    phi = float(generator.choice([0.0, 0.25, 1.0])) * float(rows[-1] @ rows[-1])
    weights, multiplier = constrained_descent(rows @ rows.T, phi)
    direction = -(weights @ rows[:-1] + multiplier * rows[-1])

    free = cvxpy.Variable(dimension)
    worst = cvxpy.max(rows[:-1] @ free) if objectives > 1 else rows[0] @ free
    problem = cvxpy.Problem(cvxpy.Minimize(worst + 0.5 * cvxpy.sum_squares(free)), [rows[-1] @ free <= -phi])
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    np.testing.assert_allclose(direction, free.value, atol=1e-6)
    assert max(rows[:-1] @ direction) + 0.5 * direction @ direction == pytest.approx(problem.value, abs=1e-8)


# With gradients that lean to the constraint's, as seeds 0 and 28 have them, the optimum lies where both bounds of ν meet.
@pytest.mark.parametrize(("seed", "lean"), [(0, 3.0), (28, 3.0), (1, 3.0), (2, 0.0), (3, 0.0), (4, 3.0)])
def test_the_printed_programme_agrees_with_cvxpy(seed: int, lean: float) -> None:
    generator = np.random.default_rng(seed)
    objectives, dimension = int(generator.integers(2, 6)), int(generator.integers(3, 9))
    rows = generator.normal(size=(objectives + 1, dimension))
    rows[:-1] += lean * generator.uniform(0, 1, (objectives, 1)) * rows[-1]
    gramian = rows @ rows.T
    phi = 0.5 * gramian[-1, -1]
    weights, multiplier = printed_constrained_descent(gramian, phi)

    free, bound = cvxpy.Variable(objectives, nonneg=True), cvxpy.Variable(nonneg=True)
    least = (2 * phi - gramian[:-1, -1] @ free) / gramian[-1, -1]
    value = 0.5 * cvxpy.sum_squares(rows[:-1].T @ free + rows[-1] * bound) - bound * phi
    problem = cvxpy.Problem(cvxpy.Minimize(value), [cvxpy.sum(free) == 1, bound >= least])
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    np.testing.assert_allclose(weights, free.value, atol=1e-5)
    assert multiplier == pytest.approx(float(bound.value), abs=1e-5)
    assert multiplier == pytest.approx(constraint_multiplier(gramian, weights, 2 * phi), abs=1e-9)


def test_where_both_bounds_of_the_printed_programme_meet() -> None:
    rows = np.array([[1.0, 0.0, 0.2], [0.0, 1.0, 2.4], [0.0, 0.0, 1.0]])
    weights, multiplier = printed_constrained_descent(rows @ rows.T, 0.25)
    assert multiplier == 0.0
    assert weights @ [0.2, 2.4] == pytest.approx(0.5)  # 2φ; the minimum-norm point has 0.38, the other case 0.69


def test_is_the_minimum_norm_point_where_the_constraint_falls_anyway() -> None:
    rows = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.1]])
    gramian = rows @ rows.T
    weights, multiplier = constrained_descent(gramian, 0.5 * gramian[-1, -1])
    assert multiplier == 0.0
    np.testing.assert_allclose(weights, minimum_norm_point(gramian[:-1, :-1]))


def test_one_objective_has_a_closed_form() -> None:
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(2, 7))
    gramian = rows @ rows.T
    phi = 2.0
    weights, multiplier = constrained_descent(gramian, phi)
    assert weights.tolist() == [1.0]
    assert multiplier == pytest.approx(max(0.0, (phi - gramian[0, 1]) / gramian[1, 1]))


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e6, 1e14])
def test_scaling_all_gradients_changes_nothing(scale: float) -> None:
    rows = gradients("ordinary", 4, 9, 3)
    gramian = rows @ rows.T
    phi = 0.25 * gramian[-1, -1]
    weights, multiplier = constrained_descent(gramian, phi)
    scaled, same = constrained_descent(gramian * scale**2, phi * scale**2)
    np.testing.assert_allclose(scaled, weights, atol=1e-9)
    assert same == pytest.approx(multiplier)


def test_without_a_constraint_gradient_there_is_no_multiplier() -> None:
    gramian = np.diag([1.0, 4.0, 0.0])
    weights, multiplier = constrained_descent(gramian, 0.0)
    assert multiplier == 0.0
    np.testing.assert_allclose(weights, [0.8, 0.2])
    assert constraint_multiplier(gramian, weights, 3.0) == 0.0


def test_order_of_objectives_does_not_matter() -> None:
    rows = gradients("ordinary", 5, 8, 11)
    gramian = rows @ rows.T
    phi = 0.3 * gramian[-1, -1]
    weights, multiplier = constrained_descent(gramian, phi)
    order = np.array([3, 1, 4, 0, 2, 5])
    moved, same = constrained_descent(gramian[np.ix_(order, order)], phi)
    np.testing.assert_allclose(moved, weights[order[:-1]], atol=1e-10)
    assert same == pytest.approx(multiplier)


@pytest.mark.parametrize(
    ("gramian", "phi", "says"),
    [
        ([[1.0]], 0.0, "one row"),
        ([[1.0, 0.0]], 0.0, "square"),
        ([[1.0, 0.0], [0.0, float("nan")]], 0.0, "not a number"),
        ([[1.0, 0.0], [0.0, 1.0]], -1.0, "≥ 0"),
        ([[1.0, 0.0], [0.0, 1.0]], float("inf"), "finite"),
    ],
)
def test_refuses_what_is_no_problem(gramian: list[list[float]], phi: float, says: str) -> None:
    with pytest.raises(InputError, match=says):
        constrained_descent(gramian, phi)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_objectives_nearly_parallel_to_the_constraint(count: int) -> None:
    # Of such a gradient next to nothing is left across the constraint's, and much of that is rounding.
    generator = np.random.default_rng(count)
    for _ in range(100):
        rows = generator.standard_normal((count + 1, 2))
        rows[-1] = rows[0] + 10.0 ** generator.uniform(-9, -4) * rows[-1]
        gramian = rows @ rows.T
        phi = float(generator.choice([0.005, 0.25, 1.5])) * gramian[-1, -1]
        weights, multiplier = constrained_descent(gramian, phi)
        assert constrained_descent_residual(gramian, phi, weights, multiplier) < 1e-8
