import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.sweep.front import dominates, hypervolume, judge, pareto, select, spread_out

coordinates = st.integers(0, 6).map(float)
clouds = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=12)


@given(clouds)
def test_hypervolume_is_the_area_of_the_union_of_boxes(points):
    """With whole coordinates the area is the number of unit squares that some point dominates."""
    reference = (7.0, 7.0)
    squares = sum(any(x <= a and y <= b for x, y in points) for a, b in itertools.product(range(7), range(7)))
    assert hypervolume(points, reference) == pytest.approx(squares)


def test_hypervolume_in_closed_form():
    assert hypervolume([[0.5, 0.25, 0.5]], [1, 1, 1]) == pytest.approx(0.5 * 0.75 * 0.5)
    # A front x + y = 1 of n steps fills half of the unit square but for its steps.
    n = 50
    assert hypervolume([[k / n, 1 - k / n] for k in range(n + 1)], [1, 1]) == pytest.approx(0.5 - 0.5 / n)
    assert hypervolume([[2, 0], [math.nan, 0], [1, 1]], [1, 1]) == 0.0


@given(clouds)
def test_the_front_is_what_nobody_dominates(points):
    front = pareto(points)
    for position, point in enumerate(points):
        assert (position in front) != any(dominates(other, point) for other in points)


@given(clouds, st.integers(1, 6))
def test_picked_points_are_distinct_points_of_the_front(points, count):
    picked = spread_out(points, count)
    assert len(set(picked)) == len(picked) == min(count, len(pareto(points)))
    assert set(picked) <= set(pareto(points))


def test_nan_takes_no_part():
    assert pareto([[math.nan, 0], [1, 1]]) == [1]
    assert not dominates([math.nan, 0], [1, 1])
    assert not dominates([0, 0], [math.nan, 1])
    assert spread_out([[math.nan, 1]], 3) == []


def test_the_ends_of_a_front_are_picked():
    points = [[k, 10 - k] for k in range(11)]
    picked = spread_out(points, 5)
    assert {0, 10} <= set(picked)


def test_selection_begins_with_the_best_and_ignores_what_is_the_same():
    values = {0: 5.0, 1: 4.0, 2: 4.0, 3: 9.0}
    points = {0: [0, 3], 1: [2, 2], 2: [2, 2], 3: [3, 0]}
    labels = {0: "a", 1: "b", 2: "b", 3: "c"}
    assert select(values, points, 9, labels) == [1, 0, 3]
    assert select(values, points, 1, labels) == [1]


METHOD = {0: (2.0, 2.0), 1: (3.0, 3.0), 2: (2.5, 2.5)}


def moved(by):
    return {seed: tuple(value + by for value in point) for seed, point in METHOD.items()}


def test_dominated_on_every_seed_and_in_the_mean():
    verdict = judge(METHOD, {"far": moved(1), "close": moved(-0.1), "trade": dict.fromkeys(METHOD, (0.0, 9.0))})
    assert verdict.dominated
    assert (verdict.by, verdict.seeds, verdict.common) == ("close", (0, 1, 2), 3)
    assert verdict.over == ("far",)


def test_dominated_in_the_mean_only():
    verdict = judge(METHOD, {"a": {0: (0.0, 0.0), 1: (3.5, 3.5), 2: (2.6, 2.6)}})
    assert verdict.mean
    assert not verdict.dominated
    assert verdict.seeds == (0,)


def test_a_different_trial_for_each_seed_does_not_dominate():
    """Each seed is dominated by some trial, as it would be with enough trials; no single one does it."""
    trials = {f"t{lucky}": {seed: (1.0, 1.0) if seed == lucky else (9.0, 9.0) for seed in METHOD} for lucky in METHOD}
    verdict = judge(METHOD, trials)
    assert not verdict.mean
    assert not verdict.dominated
    assert len(verdict.seeds) == 1
    assert verdict.over == ("t0", "t1", "t2")


def test_equal_and_incomparable_trials_do_not_dominate():
    verdict = judge(METHOD, {"same": METHOD, "trade": {seed: (x - 1, y + 1) for seed, (x, y) in METHOD.items()}})
    assert (verdict.by, verdict.mean, verdict.seeds, verdict.over) == ("", False, (), ())
    assert verdict.words("") == "no"


def test_only_common_seeds_count_and_nan_never_dominates():
    verdict = judge(METHOD, {"a": {1: (1.0, 1.0), 7: (0.0, 0.0)}})
    assert (verdict.dominated, verdict.common, verdict.seeds) == (True, 1, (1,))
    assert not judge(METHOD, {"a": {**moved(-1), 2: (math.nan, 0.0)}}).mean
    assert judge(METHOD, {"a": {7: (0.0, 0.0)}}).common == 0
