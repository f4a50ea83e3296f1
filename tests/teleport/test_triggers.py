"""Triggers on Gramians whose answer is known, their names and what is wrong with others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import equipoise as eq
from equipoise.teleport import Dominated, Majority, Released, Trigger, Weak
from equipoise.teleport.triggers import as_trigger, default_trigger, mean_cosines, norms, pairwise_cosines

Array = np.ndarray
HALF = math.sqrt(0.5)


def gramian_of(*rows: list[float]) -> Array:
    gradients = np.array(rows, dtype=float)
    return gradients @ gradients.T


# Mean (1, 1/3): the small one is against it, the large ones are not.
SMALL_AGAINST = gramian_of([2.0, 1.0], [2.0, 0.5], [-1.0, -0.5])
# Mean (1/3, 0): the small one is with it, one of the large ones is against it.
LARGE_AGAINST = gramian_of([4.0, 0.0], [-4.0, 0.0], [1.0, 0.0])
# All with the mean, but two of them against each other.
ONLY_PAIRS = gramian_of([1.0, 2.0], [-0.5, 2.0], [0.0, 3.0])
AGREEMENT = gramian_of([1.0, 0.0], [1.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("gramian", "dominated", "weak", "majority", "released"),
    [
        (SMALL_AGAINST, True, True, False, True),
        (LARGE_AGAINST, False, True, False, True),
        (ONLY_PAIRS, False, False, False, False),
        (gramian_of([1.0, 1.0], [-1.5, 1.0], [0.0, 3.0]), False, True, False, False),
        (AGREEMENT, False, False, False, False),
        (gramian_of([1.0, 0.0], [-0.5, 0.1]), True, True, True, True),
        (gramian_of([1.0, 0.0], [0.0, 2.0]), False, False, False, False),
        (gramian_of([9.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]), True, True, True, True),
    ],
)
def test_which_conflict_is_seen(gramian: Array, dominated: bool, weak: bool, majority: bool, released: bool) -> None:
    found = [trigger(gramian) for trigger in (Dominated(), Weak(), Majority(), Released())]
    assert found == [dominated, weak, majority, released]


def test_measures_are_cosines() -> None:
    gramian = gramian_of([3.0, 0.0], [-1.0, 1.0])  # the mean is (1, 1/2), of norm √5 / 2
    with_mean = np.array([2 / math.sqrt(5), -1 / math.sqrt(10)])
    assert_allclose(mean_cosines(gramian), with_mean, rtol=1e-12)
    assert_allclose(norms(gramian), [3.0, math.sqrt(2)], rtol=1e-12)
    assert_allclose(pairwise_cosines(gramian), [[1.0, -HALF], [-HALF, 1.0]], rtol=1e-12)
    assert Dominated().measure(gramian) == pytest.approx(1 / math.sqrt(10))
    assert Released().measure(gramian) == pytest.approx(1 / math.sqrt(10))
    assert Weak().measure(gramian) == pytest.approx(HALF)
    assert Majority().measure(gramian) == pytest.approx(1 / math.sqrt(10))
    assert Majority(1.0).measure(gramian) == pytest.approx(-2 / math.sqrt(5))


def opposed(against: int, tasks: int) -> Array:
    """So many tasks are against the mean: small ones, while the others are large."""
    return gramian_of(*([[-1.0]] * against + [[10.0 * tasks]] * (tasks - against)))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9])
@pytest.mark.parametrize("tasks", [2, 3, 4, 7, 10, 11, 40])
def test_a_majority_is_the_fraction_of_tasks_rounded_up(fraction: float, tasks: int) -> None:
    # In whole numbers, for 0.1 · 10 is not 1 in floating point everywhere.
    hundredths = round(fraction * 1200)
    needed = max(-(-hundredths * tasks // 1200), 1)
    for against in range(tasks):
        assert Majority(fraction)(opposed(against, tasks)) == (against >= needed), (against, needed)


def test_exact_opposites_have_no_mean_to_be_against() -> None:
    gramian = gramian_of([1.0, 2.0], [-1.0, -2.0])
    assert not Dominated()(gramian)
    assert not Majority()(gramian)
    assert Weak()(gramian)
    assert Released()(gramian)  # the released condition is "zero or below"


@pytest.mark.parametrize("trigger", [Dominated(), Weak(), Majority(), Released()])
def test_a_single_task_never_conflicts(trigger: Trigger) -> None:
    assert not trigger(np.array([[4.0]]))
    assert not trigger(np.array([[0.0]]))
    assert np.isfinite(trigger.measure(np.array([[4.0]])))
    assert np.isfinite(trigger.measure(np.array([[0.0]])))


def test_vanishing_gradients() -> None:
    nothing = np.zeros((3, 3))
    assert [trigger(nothing) for trigger in (Dominated(), Weak(), Majority(), Released())] == [False, False, False, True]
    one = gramian_of([0.0, 0.0], [1.0, 0.0], [-0.5, 0.1])
    # The smallest gradient is the vanishing one, and it is against nobody.
    assert [trigger(one) for trigger in (Dominated(), Weak(), Majority(), Released())] == [False, True, False, True]
    assert_allclose(mean_cosines(one)[0], 0.0)


def test_of_several_smallest_gradients_any_may_conflict() -> None:
    """The order of the tasks must not matter."""
    rows = [[3.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]
    assert Dominated()(gramian_of(*rows))
    assert Dominated()(gramian_of(rows[0], rows[2], rows[1]))


@pytest.mark.parametrize("name", ["dominated", "weak", "majority", "released"])
def test_names(name: str) -> None:
    trigger = as_trigger(name)
    assert trigger is not None
    assert trigger.name == name
    assert as_trigger(trigger) is trigger


def test_the_default_depends_on_the_number_of_tasks() -> None:
    assert as_trigger(None) is None
    assert isinstance(default_trigger(2), Dominated)
    assert isinstance(default_trigger(9), Dominated)
    assert default_trigger(10) == Majority(0.5)
    assert default_trigger(40) == Majority(0.5)


def test_a_function_of_the_gramian() -> None:
    seen: list[Array] = []

    def first_is_large(gramian: Array) -> Any:
        seen.append(gramian)
        return np.bool_(gramian[0, 0] > 5)

    trigger = as_trigger(first_is_large)
    assert trigger is not None
    assert trigger.name == "first_is_large"
    assert trigger(gramian_of([3.0, 0.0], [1.0, 1.0])) is True
    assert trigger(gramian_of([1.0, 0.0], [1.0, 1.0])) is False
    assert_allclose(seen[0], [[9.0, 3.0], [3.0, 2.0]])
    assert trigger.measure(SMALL_AGAINST) == Released().measure(SMALL_AGAINST)

    class Counter:
        def __call__(self, gramian: Array) -> bool:
            return True

    counter = as_trigger(Counter())
    assert counter is not None
    assert counter.name == "Counter"


def test_errors() -> None:
    with pytest.raises(eq.InputError, match=r'there is no trigger "dominatd"\. Did you mean "dominated"'):
        as_trigger("dominatd")
    with pytest.raises(eq.InputError, match="trigger must be a Trigger, a function of the Gramian or one of dominated, "):
        as_trigger(3)  # type: ignore[arg-type]
    for fraction in (0.0, -0.5, 1.1, float("nan")):
        with pytest.raises(eq.InputError, match="fraction must be above 0 and at most 1"):
            Majority(fraction)
