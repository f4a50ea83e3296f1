"""What may be passed in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from equipoise import solvers
from equipoise.errors import InputError
from tests.solvers.matrices import Array, ordinary

SOLVERS: dict[str, Callable[[Array], object]] = {
    "minimum_norm_point": solvers.minimum_norm_point,
    "conflict_averse_weights": lambda gramian: solvers.conflict_averse_weights(gramian, 0.4),
    "conflict_averse_direction": lambda gramian: solvers.conflict_averse_direction(gramian, 0.4),
    "nash_bargaining": solvers.nash_bargaining,
    "fair_weights": lambda gramian: solvers.fair_weights(gramian, 2.0),
    "equal_projections": solvers.equal_projections,
    "project_conflicts": lambda gramian: solvers.project_conflicts(gramian, [[1, 2], [0, 2], [0, 1]]),
    "nonnegative_quadratic_program": lambda gramian: solvers.nonnegative_quadratic_program(gramian, np.ones(3)),
    "simplex_quadratic_program": lambda gramian: solvers.simplex_quadratic_program(gramian, np.ones(3)),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite(name: str, bad: float) -> None:
    gramian = np.eye(3)
    gramian[0, 2] = bad
    with pytest.raises(InputError, match="infinite or not a number"):
        SOLVERS[name](gramian)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(0, 0), (2, 3), (3,), (1, 3, 3)])
def test_shapes_that_are_no_gramian(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a square matrix \[K, K\]"):
        SOLVERS[name](np.ones(shape))


@pytest.mark.parametrize("name", SOLVERS)
def test_input_is_left_alone(name: str) -> None:
    gradients = ordinary(np.random.default_rng(0), 3)
    gradients[1] = -gradients[0]
    gramian = gradients @ gradients.T
    before = gramian.copy()
    gramian.flags.writeable = False
    SOLVERS[name](gramian)
    assert (gramian == before).all()


@pytest.mark.parametrize("c", [-0.1, np.nan, np.inf])
def test_radius(c: float) -> None:
    for call in (solvers.conflict_averse_weights, solvers.conflict_averse_direction):
        with pytest.raises(InputError, match="expected a finite number ≥ 0"):
            call(np.eye(2), c)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf])
def test_fairness(alpha: float) -> None:
    with pytest.raises(InputError, match="expected a finite number > 0"):
        solvers.fair_weights(np.eye(2), alpha)


@pytest.mark.parametrize("orders", [[[1]], [[1], [2]], [[1], [-1]], [[1.0], [0.0]], [1, 0]])
def test_orders(orders: list[object]) -> None:
    with pytest.raises(InputError, match="orders has"):
        solvers.project_conflicts(np.eye(2), orders)
    with pytest.raises(InputError, match="number of tasks is 0"):
        solvers.random_orders(0, np.random.default_rng(0))


@pytest.mark.parametrize("solve", [solvers.nonnegative_quadratic_program, solvers.simplex_quadratic_program])
def test_linear_terms(solve: Callable[[Array, Array], Array]) -> None:
    with pytest.raises(InputError, match=r"the linear term has shape \(3,\); expected \[2\]"):
        solve(np.eye(2), np.ones(3))
    with pytest.raises(InputError, match="the linear term has an entry"):
        solve(np.eye(2), np.array([0.0, np.nan]))


def test_residuals_of_answers_that_break_the_constraints() -> None:
    gramian = np.eye(2)
    assert solvers.minimum_norm_residual(gramian, [0.7, 0.7]) > 0.3
    assert solvers.minimum_norm_residual(gramian, [1.2, -0.2]) > 0.1
    assert solvers.nash_residual(gramian, [1.0, -1.0]) == np.inf
    assert solvers.fair_residual(gramian, 2.0, [1.0, 0.0]) == np.inf
    assert solvers.simplex_residual(gramian, np.zeros(2), [0.7, 0.7]) > 0.3
    assert solvers.nonnegative_residual(gramian, np.ones(2), [1.0, -1.0]) > 0.1
    assert solvers.conflict_averse_residual(gramian, 0.4, [0.5, 0.6]) > 0.05
    assert solvers.equal_projections_residual(gramian, [0.5, 0.6]) > 0.05


def test_solvers_do_not_load_scipy() -> None:
    """SciPy is a test dependency only; torch comes with the package's own __init__."""
    program = "import sys, equipoise.solvers; print('scipy' in sys.modules, 'cvxpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
