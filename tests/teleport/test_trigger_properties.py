"""Laws of the triggers on random gradients, against direct computations from the gradients themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from equipoise.teleport import Dominated, Majority, Released, Trigger, Weak
from equipoise.teleport.triggers import mean_cosines, norms, pairwise_cosines

Array = np.ndarray
TRIGGERS: list[Trigger] = [Dominated(), Weak(), Majority(), Majority(0.25), Majority(0.75), Majority(1.0), Released()]
by_name = pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)

numbers = st.floats(-1.0, 1.0, allow_subnormal=False).map(lambda number: round(number, 2))


@st.composite
def task_gradients(draw: st.DrawFn, least: int = 1) -> Array:
    """Gradients of few digits, in which zero, equal, opposed and dependent rows are frequent."""
    tasks, parameters = draw(st.integers(least, 7)), draw(st.integers(1, 6))
    return draw(arrays(np.float64, (tasks, parameters), elements=numbers))


def cosine(a: Array, b: Array) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths > 1e-9 else 0.0


def direct(trigger: Trigger, gradients: Array) -> float:
    """The measure from the gradients, as the paper words it."""
    tasks = len(gradients)
    mean = gradients.mean(0)
    if isinstance(trigger, Weak):
        pairs = [cosine(gradients[i], gradients[j]) for i in range(tasks) for j in range(i)]
        return -min(pairs, default=1.0)
    cosines = [cosine(gradient, mean) for gradient in gradients]
    if isinstance(trigger, Dominated):
        lengths = [round(float(gradient @ gradient), 9) for gradient in gradients]
        return -min(c for c, length in zip(cosines, lengths, strict=True) if length == min(lengths))
    if isinstance(trigger, Majority):
        # The largest value that so many tasks are below.
        return -sorted(cosines)[math.ceil(round(trigger.fraction * tasks, 6)) - 1]
    return -min(cosines)


def clear(gradients: Array) -> bool:
    """Whether the mean gradient is not mere rounding, and no two norms are equal but for it."""
    lengths = np.unique(np.round(np.square(gradients).sum(1), 9))
    exact = np.unique(np.square(gradients).sum(1))
    return len(lengths) == len(exact) and bool(np.linalg.norm(gradients.mean(0)) > 1e-6)


@by_name
@settings(max_examples=80, deadline=None, derandomize=True)
@given(gradients=task_gradients())
def test_measures_agree_with_the_gradients(trigger: Trigger, gradients: Array) -> None:
    assume(clear(gradients))
    gramian = gradients @ gradients.T
    expected = direct(trigger, gradients)
    assert_allclose(trigger.measure(gramian), expected, atol=1e-7)
    if len(gradients) == 1:
        assert not trigger(gramian)
    elif abs(expected) > 1e-6:  # nearer to the threshold, rounding decides
        assert trigger(gramian) == (expected > 0)


@by_name
@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(), exponent=st.integers(-10, 15))
def test_scale_does_not_matter(trigger: Trigger, gradients: Array, exponent: int) -> None:
    # A power of two scales without rounding.
    scaled = gradients * 2.0 ** round(exponent * math.log2(10))
    gramian, large = gradients @ gradients.T, scaled @ scaled.T
    assert trigger.measure(large) == trigger.measure(gramian)
    assert trigger(large) == trigger(gramian)


@by_name
@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(), seed=st.integers(0, 1000))
def test_the_order_of_the_tasks_does_not_matter(trigger: Trigger, gradients: Array, seed: int) -> None:
    # What is left of a mean near 0 is rounding, which depends on the order.
    assume(np.linalg.norm(gradients.mean(0)) > 1e-6)
    order = np.random.default_rng(seed).permutation(len(gradients))
    gramian = gradients @ gradients.T
    assert_allclose(trigger.measure(gramian[np.ix_(order, order)]), trigger.measure(gramian), atol=1e-7)


@by_name
@settings(max_examples=40, deadline=None, derandomize=True)
@given(gradients=task_gradients(), exponents=arrays(np.int64, 7, elements=st.integers(-10, 15)))
def test_every_scale_has_a_finite_answer_between_the_bounds(trigger: Trigger, gradients: Array, exponents: Array) -> None:
    scaled = gradients * 10.0 ** exponents[: len(gradients), None]
    measure = float(trigger.measure(scaled @ scaled.T))
    assert math.isfinite(measure)
    assert -1.0 <= measure <= 1.0


@by_name
def test_several_gramians_at_once(trigger: Trigger) -> None:
    gradients = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    gramians = gradients @ gradients.swapaxes(-1, -2)
    measures = np.asarray(trigger.measure(gramians))
    assert measures.shape == (2, 3)
    for place in np.ndindex(2, 3):
        assert_allclose(measures[place], trigger.measure(gramians[place]), rtol=1e-12)
    assert norms(gramians).shape == mean_cosines(gramians).shape == (2, 3, 5)
    assert_allclose(norms(gramians), np.linalg.norm(gradients, axis=-1), rtol=1e-12)
    assert pairwise_cosines(gramians).shape == (2, 3, 5, 5)


@by_name
@settings(max_examples=40, deadline=None, derandomize=True)
@given(gradients=task_gradients(least=2))
def test_a_task_given_twice_keeps_the_bounds(trigger: Trigger, gradients: Array) -> None:
    twice = np.concatenate([gradients, gradients])
    gramian = twice @ twice.T
    measure = float(trigger.measure(gramian))
    assert -1.0 <= measure <= 1.0
    if isinstance(trigger, Dominated | Released) and clear(gradients):
        # The mean is the same, so are all cosines with it.
        assert_allclose(measure, trigger.measure(gradients @ gradients.T), atol=1e-7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(gradients=task_gradients(least=2))
def test_larger_fractions_ask_for_more_conflict(gradients: Array) -> None:
    gramian = gradients @ gradients.T
    measures = [float(Majority(fraction).measure(gramian)) for fraction in (0.01, 0.25, 0.5, 0.75, 1.0)]
    assert measures == sorted(measures, reverse=True)
    assert measures[0] == float(Released().measure(gramian))
