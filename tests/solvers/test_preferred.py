"""The programmes behind EPO, PMGDA, FERERO and PMTL: against other solvers, released code's numbers, and on nasty Gramians."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

import equipoise as eq
from equipoise import solvers
from equipoise.errors import InputError
from tests.solvers.matrices import gramians

Array = NDArray[np.float64]


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("seed", range(12))
def test_linear_programmes_are_as_good_as_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size, more = int(generator.integers(1, 9)), int(generator.integers(3, 9))
    rows = generator.standard_normal((more, size))
    rows[1], rows[2] = rows[0], -generator.random() * rows[0]  # degenerate
    inside = generator.dirichlet(np.ones(size))
    least = np.append(rows @ inside - generator.random(more) * (generator.random(more) < 0.6), np.zeros(size))
    rows = np.vstack([rows, np.eye(size)])
    slope = np.round(generator.standard_normal(size)) if seed % 3 == 0 else generator.standard_normal(size)
    point = solvers.linear_program(slope, rows, least, np.ones(size), np.full(size, 1 / size))
    theirs = linprog(-slope, A_ub=-rows, b_ub=-least, A_eq=np.ones((1, size)), b_eq=[1], bounds=(None, None))
    assert slope @ point == pytest.approx(-theirs.fun, abs=1e-9)
    assert solvers.linear_program_residual(slope, rows, least, np.ones(size), point) < 1e-9
    if slope @ point > slope @ inside + 1e-3:
        assert solvers.linear_program_residual(slope, rows, least, np.ones(size), inside) > 1e-6


def test_of_equal_tasks_all_take_the_same_share() -> None:
    assert solvers.exact_pareto_weights(np.ones((3, 3)), np.ones(3), np.ones(3)).tolist() == pytest.approx([1 / 3] * 3)


def test_exact_pareto_weights_are_released_codes() -> None:
    """Numbers of github.com/dbmptr/EPOSearch, toy_experiments/solvers/epo_lp.py, with HiGHS for GLPK: balance and descent."""
    g = np.array(
        [
            [0.19, -0.52, -0.41, -2.44, 1.8],
            [1.14, -0.33, 0.77, 0.28, -0.55],
            [0.98, -0.31, -0.33, -0.79, 0.45],
            [-0.1, 0.55, -0.61, 0.13, -0.89],
        ]
    )
    losses, preference = np.array([0.36, 0.4, 0.91, 0.19]), np.array([0.72, 0.67, 0.62, 0.11])
    balanced = [0.0, 0.65411761, 0.2059032, 0.13997919]
    assert solvers.exact_pareto_weights(g @ g.T, losses, preference) == pytest.approx(balanced, abs=1e-7)
    three = np.round(normal(3, 3, 5), 2)
    preference = np.round(np.random.default_rng(53).random(3) + 0.1, 2)
    found = solvers.exact_pareto_weights(three @ three.T, 0.6 / preference / 3, preference)
    assert found == pytest.approx([0.5126099, 0.4873901, 0.0], abs=1e-7)


def test_exact_pareto_programmes_on_nasty_gramians() -> None:
    generator = np.random.default_rng(0)
    for name, gramian in itertools.islice(gramians(generator, (1, 2, 4)), 0, None, 24):
        size = len(gramian)
        losses, preference = generator.exponential(size=size) + 1e-3, generator.dirichlet(np.ones(size)) + 1e-3
        for given in (losses, 1 / preference):
            weights = solvers.exact_pareto_weights(gramian, given, preference)
            assert weights.min() >= 0
            assert weights.sum() == pytest.approx(1)
            slope, rows, least = solvers.exact_pareto_program(gramian, given, preference)
            scale = np.maximum(np.abs(rows).max(axis=1), 1e-300)
            rows, least = rows / scale[:, None], least / scale
            slope = slope / max(np.abs(slope).max(), 1e-300)
            relaxed = len(rows) > 2 * size and (rows[-1] @ weights < least[-1] - 1e-6)
            rows, least = (rows[:-1], least[:-1]) if relaxed else (rows, least)
            assert (rows @ weights >= least - 1e-6).all(), name
            bound = least > -np.inf
            theirs = linprog(-slope, A_ub=-rows[bound], b_ub=-least[bound], A_eq=np.ones((1, size)), b_eq=[1])
            assert slope @ weights >= -theirs.fun - 1e-6, name


def constrained(g: Array, matrix: Array, right: Array, *, equal: bool) -> Array:
    """The direction −d of min max_k ⟨g_k, d⟩ + ½‖d‖² under M d = or ≥ r, by cvxpy."""
    step, least = cp.Variable(g.shape[1]), cp.Variable()
    bound = matrix @ step == right if equal else matrix @ step >= right
    cp.Problem(cp.Minimize(0.5 * cp.sum_squares(step) - least), [g @ step >= least, bound]).solve(solver=cp.CLARABEL)
    assert step.value is not None
    return np.asarray(step.value)


@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_descent_along_a_ray_is_cvxpys(tasks: int) -> None:
    g, losses = normal(tasks, tasks, 6), np.random.default_rng(tasks).random(tasks) + 0.1
    preference = np.random.default_rng(9).dirichlet(np.ones(tasks))
    along = preference / np.linalg.norm(preference)
    across = np.eye(tasks) - np.outer(along, along)
    weights = solvers.ray_descent(g @ g.T, losses, preference, 0.5)
    if tasks > 1:
        across = across[:-1]  # its rows are dependent
        assert weights @ g == pytest.approx(constrained(g, across @ g, 0.5 * across @ losses, equal=True), abs=1e-5)
    assert solvers.ray_descent_residual(g @ g.T, losses, preference, weights, 0.5) < 1e-9
    worse = weights + np.linalg.solve(g @ g.T, 0.1 * preference)
    assert solvers.ray_descent_residual(g @ g.T, losses, preference, worse, 0.5) > 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_descent_within_bounds_is_cvxpys(seed: int) -> None:
    g = normal(seed, 3, 6) + (seed == 3) * np.outer([1, -1, 0], np.full(6, 2))
    excess = np.array([[-np.inf, 0.5, -0.2], [-np.inf] * 3, [3.0, 2.0, 1.0], [2.0, -np.inf, -np.inf]][seed])
    weights = solvers.bounded_descent(g @ g.T, excess)
    bounded = np.isfinite(excess)
    theirs = constrained(g, g[bounded], excess[bounded], equal=False) if bounded.any() else None
    if theirs is None:
        assert weights == pytest.approx(solvers.minimum_norm_point(g @ g.T), abs=1e-9)
    else:
        assert weights @ g == pytest.approx(theirs, abs=1e-5)


def test_descent_of_constant_distance_is_the_shortest_across_its_gradient() -> None:
    g, slope = normal(3, 3, 6), np.array([0.8, -0.6, 0.0])
    weights = solvers.constant_distance_descent(g @ g.T, slope)
    theirs = constrained(g, (slope @ g)[None], np.zeros(1), equal=True)
    assert weights @ g == pytest.approx(theirs, abs=1e-5)


def test_the_correction_lowers_the_distance_at_its_rate_and_spares_the_worst_task() -> None:
    g = normal(2, 3, 6)
    distance, slope = solvers.ray_distance([1.0, 0.2, 0.5], [1.0, 1.0, 1.0])
    step = solvers.least_slack_weights(g @ g.T, slope, 0.9) @ g
    assert float((slope @ g) @ step) >= 0.9 * np.linalg.norm(slope @ g) - 1e-9
    units = np.vstack([g, slope @ g])
    gains = units @ (units / np.linalg.norm(units, axis=1, keepdims=True)).T
    theirs = linprog(
        [0, 0, 0, 0, -1.0],
        A_ub=np.vstack([np.column_stack([-gains[:3], np.ones(3)]), np.append(-gains[3], 0)]),
        b_ub=[0, 0, 0, -0.9 * np.linalg.norm(slope @ g)],
        A_eq=[[1, 1, 1, 1, 0]],
        b_eq=[1],
        bounds=[(0, None)] * 4 + [(None, None)],
    )
    assert float((g @ step).min()) == pytest.approx(-theirs.fun, abs=1e-8)
    assert distance == pytest.approx(np.std([1.0, 0.2, 0.5]) * 3**0.5)


def test_descents_on_nasty_gramians() -> None:
    generator = np.random.default_rng(1)
    for name, gramian in itertools.islice(gramians(generator, (1, 2, 4)), 0, None, 15):
        size = len(gramian)
        losses, preference = generator.exponential(size=size), generator.dirichlet(np.ones(size))
        weights = solvers.ray_descent(gramian, losses, preference)
        assert solvers.ray_descent_residual(gramian, losses, preference, weights) < 1e-8, name
        _, slope = solvers.ray_distance(losses, preference)
        weights = solvers.constant_distance_descent(gramian, slope)
        assert solvers.constant_distance_residual(gramian, slope, weights) < 1e-6, name
        weights = solvers.bounded_descent(gramian, losses - preference)
        assert np.isfinite(weights).all(), name
        if "mixed scales" not in name:
            assert solvers.bounded_descent_residual(gramian, losses - preference, weights) < 1e-6, name
        assert np.isfinite(solvers.least_slack_weights(gramian, slope, 0.95)).all(), name


def test_residuals_tell_wrong_answers() -> None:
    g, slope, excess = normal(3, 3, 6), np.array([0.8, -0.6, 0.0]), np.array([0.5, -np.inf, 0.1])
    q = g @ g.T
    weights, bounded = solvers.constant_distance_descent(q, slope), solvers.bounded_descent(q, excess)
    for moved in ([0.1, 0.0, 0.0], [0.0, 0.1, -0.1], [0.05, 0.05, -0.1]):
        assert solvers.constant_distance_residual(q, slope, weights + moved) > 1e-3
        assert solvers.bounded_descent_residual(q, excess, bounded + moved) > 1e-3
    assert solvers.constant_distance_residual(q, slope, 2 * weights) > 1e-3


def test_two_tasks_as_released_code_has_them() -> None:
    """FERERO's inner loop (lisha-chen/FERERO) run to 1e-14, and the descent of Pareto MTL (Xi-L/ParetoMTL), on one matrix."""
    g, losses = 0.5 * np.round(normal(0, 2, 5), 2), np.round(np.random.default_rng(0).random(2) + 0.1, 2)
    weights = solvers.ray_descent(g @ g.T, losses, [0.3, 0.7])
    assert weights == pytest.approx([4.7918355, -1.05364378], rel=1e-6)
    rays = [[np.cos(angle), np.sin(angle)] for angle in np.linspace(0, np.pi / 2, 5)]
    balancer = eq.PMTL(rays[1], others=rays)
    g, losses = np.round(normal(1, 2, 5), 2), np.round(np.random.default_rng(1).random(2) + 0.1, 2)
    assert balancer.weights(g @ g.T, losses).tolist() == pytest.approx([-0.21677275, 0.32442335], rel=1e-6)
    balancer.steps = 100
    assert balancer.weights(g @ g.T, losses).tolist() == pytest.approx([0.04204774, 0.25541506], rel=1e-6)


def test_what_is_refused() -> None:
    for bad in (
        lambda: solvers.exact_pareto_weights(np.eye(2), [1.0, 0.0], [1.0, 1.0]),
        lambda: solvers.ray_descent(np.eye(2), [1.0, 1.0], [0.0, 0.0]),
        lambda: solvers.bounded_descent(np.eye(2), [1.0, np.inf]),
        lambda: solvers.least_slack_weights(np.eye(2), [1.0, 0.0], 1.5),
        lambda: solvers.linear_program([1.0], np.eye(2), [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]),
        lambda: solvers.linear_program([1.0, 0.0], np.eye(2), [0.0], [1.0, 1.0], [0.5, 0.5]),
    ):
        with pytest.raises(InputError):
            bad()
