"""Laws that hold for all matrices: relabelling, rescaling, and what the methods promise about the losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from equipoise import solvers
from tests.solvers.matrices import Array

Solve = Callable[[Array], Array]

COMBINATIONS: dict[str, Solve] = {
    "minimum norm": solvers.minimum_norm_point,
    "Nash": solvers.nash_bargaining,
    "equal projections": solvers.equal_projections,
    "conflict averse": lambda gramian: solvers.conflict_averse_direction(gramian, 0.4),
    "conflict averse, large radius": lambda gramian: solvers.conflict_averse_direction(gramian, 1.5),
    "fair, alpha = 0.3": lambda gramian: solvers.fair_weights(gramian, 0.3),
    "fair, alpha = 2": lambda gramian: solvers.fair_weights(gramian, 2.0),
    "fair, alpha = 10": lambda gramian: solvers.fair_weights(gramian, 10.0),
}

numbers = st.floats(-1.0, 1.0, allow_subnormal=False).map(lambda number: round(number, 3))


@st.composite
def task_gradients(draw: st.DrawFn, scales: tuple[int, int] = (0, 0)) -> Array:
    """Gradients of few digits, in which zero, equal, opposed and dependent rows are frequent."""
    tasks, parameters = draw(st.integers(1, 7)), draw(st.integers(1, 8))
    rows = draw(arrays(np.float64, (tasks, parameters), elements=numbers))
    exponents = draw(arrays(np.int64, (tasks, 1), elements=st.integers(*scales)))
    return np.asarray(rows * 10.0**exponents)


def length(gradients: Array, coefficients: Array) -> float:
    """What rounding in a combination is relative to: the sum of the lengths of its parts."""
    return float(np.abs(coefficients) @ np.linalg.norm(gradients, axis=1))


@pytest.mark.parametrize("name", COMBINATIONS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(), seed=st.integers(0, 1000))
def test_relabelling_tasks_relabels_the_answer(name: str, gradients: Array, seed: int) -> None:
    solve = COMBINATIONS[name]
    order = np.random.default_rng(seed).permutation(len(gradients))
    coefficients = solve(gradients @ gradients.T)
    relabelled = solve(gradients[order] @ gradients[order].T)
    difference = np.linalg.norm(coefficients @ gradients - relabelled @ gradients[order])
    assert difference <= 1e-6 * length(gradients, coefficients) + 1e-300


@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(scales=(-10, 15)), seed=st.integers(0, 1000))
def test_surgery_is_relabelled_with_its_orders(gradients: Array, seed: int) -> None:
    generator = np.random.default_rng(seed)
    tasks = len(gradients)
    order = generator.permutation(tasks)
    orders = solvers.random_orders(tasks, generator)
    gramian = gradients @ gradients.T
    coefficients = solvers.project_conflicts(gramian, orders)
    relabelled = solvers.project_conflicts(gramian[order][:, order], np.argsort(order)[orders[order]])
    # Cosines at rounding level may have either sign, which changes the answer by as little.
    difference = np.linalg.norm(coefficients[order] @ gradients[order] - relabelled @ gradients[order])
    assert difference <= 1e-9 * np.linalg.norm(gradients, axis=1).sum() * max(1.0, np.abs(coefficients).max())


@pytest.mark.parametrize("name", COMBINATIONS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(scales=(-10, 15)))
def test_mixed_scales_have_finite_answers(name: str, gradients: Array) -> None:
    assert np.isfinite(COMBINATIONS[name](gradients @ gradients.T)).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(), data=st.data())
def test_nash_direction_ignores_the_scale_of_single_tasks(gradients: Array, data: st.DataObject) -> None:
    # Powers of two change nothing but the exponents, so not even rounding differs.
    exponents = data.draw(arrays(np.int64, (len(gradients), 1), elements=st.integers(-30, 30)))
    rescaled = gradients * 2.0**exponents
    alpha, changed = (solvers.nash_bargaining(rows @ rows.T) for rows in (gradients, rescaled))
    assert_allclose(changed[:, None] * 2.0**exponents, alpha[:, None], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("minimum norm", 0.0),
        ("conflict averse", 0.0),
        ("equal projections", 0.0),
        ("Nash", -1.0),
        ("fair, alpha = 0.3", -0.6 / 1.3),
        ("fair, alpha = 10", -20.0 / 11.0),
    ],
)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(gradients=task_gradients(), exponent=st.integers(-10, 15))
def test_scaling_all_gradients_together(name: str, power: float, gradients: Array, exponent: int) -> None:
    gramian = gradients @ gradients.T
    expected = COMBINATIONS[name](gramian)
    found = COMBINATIONS[name](gramian * 4.0**exponent) * 2.0 ** (-power * exponent)
    assert_allclose(found @ gradients, expected @ gradients, rtol=0, atol=1e-6 * length(gradients, expected) + 1e-300)


@pytest.mark.parametrize("name", ["minimum norm", "Nash", "fair, alpha = 0.3", "fair, alpha = 2", "fair, alpha = 10"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients())
def test_no_loss_increases_to_first_order(name: str, gradients: Array) -> None:
    gramian = gradients @ gradients.T
    coefficients = COMBINATIONS[name](gramian)
    change = gramian @ coefficients
    norms = np.sqrt(gramian.diagonal())
    # The ridge moves gradients by 1e-5 of their length in directions of their own: that much may be left of a conflict.
    assert (change >= -1e-9 * norms * length(gradients, coefficients)).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(), c=st.floats(0.0, 0.99))
def test_conflict_averse_direction_improves_the_mean_and_the_worst_task(gradients: Array, c: float) -> None:
    gramian = gradients @ gradients.T
    mean = gradients.mean(axis=0)
    direction = solvers.conflict_averse_direction(gramian, c) @ gradients
    rounding = 1e-4 * np.linalg.norm(gradients, axis=1).mean() ** 2
    assert direction @ mean >= (1.0 - c) * (mean @ mean) - rounding
    assert np.linalg.norm(direction - mean) <= c * np.linalg.norm(mean) + 1e-4 * np.linalg.norm(gradients, axis=1).mean()
    assert (gradients @ direction).min() >= (gradients @ mean).min() - rounding


@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(scales=(-3, 3)), data=st.data())
def test_programmes_are_not_improved_by_feasible_points(gradients: Array, data: st.DataObject) -> None:
    tasks = len(gradients)
    gramian = gradients @ gradients.T
    linear = data.draw(arrays(np.float64, tasks, elements=numbers))
    other = data.draw(arrays(np.float64, tasks, elements=st.floats(0.0, 1.0)))
    squares = gramian.diagonal()

    def value(point: Array) -> float:
        return float(0.5 * point @ gramian @ point + linear @ point)

    found = solvers.simplex_quadratic_program(gramian, linear)
    rival = (other + 1e-3) / (other + 1e-3).sum()
    assert value(found) <= value(rival) + 1e-9 * (squares.max() + 1.0)
    cone = solvers.nonnegative_quadratic_program(gramian, gramian @ (other - 0.5))
    shifted = cone - (other - 0.5)
    rival_shift = rival - (other - 0.5)
    assert shifted @ gramian @ shifted <= rival_shift @ gramian @ rival_shift + 1e-6 * squares.sum() + 1e-300
