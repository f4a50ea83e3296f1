import math

import numpy as np
import pytest

from equipoise.errors import InputError
from equipoise.metrics import holm, paired_comparison

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 9, 30])
def test_agrees_with_scipy(n):
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.3, 2.0, 8.0):
        one, other = generator.normal(size=(2, n))
        one += shift
        ours = paired_comparison(one.tolist(), other.tolist())
        theirs = stats.ttest_rel(one, other)
        assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-13)
        assert ours.difference == pytest.approx((one - other).mean())
        assert ours.n == n


def test_one_pair_cannot_be_tested():
    alone = paired_comparison([1.0], [3.0])
    assert alone.difference == -2.0
    assert math.isnan(alone.p)


def test_differences_without_spread():
    assert paired_comparison([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert paired_comparison([2.0, 3.0], [1.0, 2.0]).p == 0.0


def test_training_that_went_wrong_is_not_tested():
    assert math.isnan(paired_comparison([1.0, math.nan, 2.0], [1.0, 2.0, 3.0]).p)


def test_bad_input():
    with pytest.raises(InputError, match="given: 2 and 3"):
        paired_comparison([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="without any value"):
        paired_comparison([], [])


def test_holm():
    corrected = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": math.nan})
    assert corrected["b"] == pytest.approx(0.03)
    assert corrected["c"] == pytest.approx(0.06)
    assert corrected["a"] == pytest.approx(0.06)  # never below a smaller p-value's correction
    assert math.isnan(corrected["d"])
    assert list(corrected) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
