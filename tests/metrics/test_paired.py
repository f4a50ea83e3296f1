import math

import numpy as np
import pytest

from equipoise.errors import InputError
from equipoise.metrics import holm, paired_comparison


def two_sided(t: float, freedom: int) -> float:
    """P(|T| > t) for whole degrees of freedom, by the finite trigonometric series."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    odd = freedom % 2
    term, series = 1.0, 0.0
    for numerator in range(odd, freedom - 1, 2):
        series += term
        term *= (numerator + 1) / (numerator + 2) * math.cos(angle) ** 2
    inside = 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * series) if odd else math.sin(angle) * series
    return 1.0 - inside


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 9, 30])
def test_against_the_series(n):
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.3, 2.0, 8.0):
        one, other = generator.normal(size=(2, n))
        one += shift
        ours = paired_comparison(one.tolist(), other.tolist())
        differences = one - other
        t = differences.mean() / (differences.std(ddof=1) / math.sqrt(n))
        assert ours.p == pytest.approx(two_sided(t, n - 1), rel=1e-9, abs=1e-13)
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
