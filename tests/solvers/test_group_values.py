"""Grouping numbers on a line, against brute force and against k-means with many restarts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import equipoise as eq
from equipoise.solvers import group_values, grouping_cost


def brute_force(values: np.ndarray, groups: int) -> float:
    """The least cost over all ways to cut the sorted values; an optimal group is an interval."""
    line = np.sort(values)
    return min(
        sum(float(np.square(part - part.mean()).sum()) for part in np.split(line, cuts))
        for count in range(min(groups, len(line)))
        for cuts in combinations(range(1, len(line)), count)
    )


few_digits = st.floats(-10, 10, allow_nan=False).map(lambda number: round(number, 1))


@given(values=st.lists(few_digits, min_size=1, max_size=9), groups=st.integers(1, 5), exponent=st.integers(-12, 15))
def test_no_grouping_is_better(values: list[float], groups: int, exponent: int) -> None:
    scaled = np.array(values) * 10.0**exponent
    labels = group_values(scaled, groups)
    size = float(np.abs(scaled).max()) ** 2
    assert grouping_cost(scaled, labels) <= brute_force(scaled, groups) + 1e-13 * size * len(values)
    assert sorted(set(labels.tolist())) == list(range(min(groups, len(set(values)))))


@given(values=st.lists(few_digits, min_size=1, max_size=12), groups=st.integers(1, 6), seed=st.integers(0, 100))
def test_groups_are_intervals_of_values_whatever_their_order(values: list[float], groups: int, seed: int) -> None:
    given_values = np.array(values)
    labels = group_values(given_values, groups)
    order = np.random.default_rng(seed).permutation(len(values))
    assert np.array_equal(group_values(given_values[order], groups), labels[order])
    ranked = labels[np.argsort(given_values, kind="stable")]
    assert (np.diff(ranked) >= 0).all()
    for value in values:
        assert len(set(labels[given_values == value].tolist())) == 1


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_never_worse_than_k_means_with_restarts(groups: int, seed: int) -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(seed).lognormal(size=40)
    theirs = KMeans(groups, n_init=50, random_state=0, tol=0).fit(values[:, None])
    ours = grouping_cost(values, group_values(values, groups))
    assert ours <= theirs.inertia_ * (1 + 1e-12)
    assert ours == pytest.approx(theirs.inertia_, rel=1e-2)


def test_small_differences_beside_large_values() -> None:
    """Sums of squares minus squares of sums would see no difference between the last two values."""
    assert group_values([0.0, 1.0, 1e8, 1e8 + 1e-3, 1e8 + 5.0], 4).tolist() == [0, 1, 2, 2, 3]
    assert group_values([1e-10, 2e-10, 1e15, 2e15], 3).tolist() == [0, 0, 1, 2]


def test_ties_go_to_the_upper_group() -> None:
    assert group_values([0.0, 1.0, 2.0], 2).tolist() == [0, 1, 1]
    assert group_values([2.0, 1.0, 0.0], 2).tolist() == [1, 1, 0]
    assert group_values([3.0, 3.0, 3.0], 2).tolist() == [0, 0, 0]
    assert group_values([1.0, 2.0], 9).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([], 2, r"expected \[n\]"),
        ([[1.0]], 2, r"shape \(1, 1\)"),
        ([1.0, np.nan], 2, "infinite or not a number"),
        ([1.0, np.inf], 1, "infinite or not a number"),
        ([1.0, -np.inf, 2.0], 2, "infinite or not a number"),
        ([1.0], 0, "number of groups is 0"),
    ],
)
def test_bad_input(values: list[float], groups: int, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        group_values(values, groups)


@given(values=st.lists(few_digits, min_size=3, max_size=30))
def test_the_short_way_for_two_groups_is_as_good_as_the_long_one(values: list[float]) -> None:
    given_values = np.array(values)
    line = np.unique(given_values)
    assert (
        grouping_cost(given_values, group_values(given_values, 2))
        <= min([grouping_cost(given_values, (given_values >= cut).astype(int)) for cut in line[1:]] or [0.0]) * (1 + 1e-12)
        + 1e-13
    )
