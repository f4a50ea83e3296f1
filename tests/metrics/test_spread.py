import math

import numpy as np
import pytest

from equipoise.errors import InputError
from equipoise.metrics import spread


def test_agrees_with_numpy():
    values = np.random.default_rng(0).normal(1e6, 1e-3, size=20)
    ours = spread(values)
    assert ours.mean == pytest.approx(values.mean(), rel=1e-15)
    assert ours.std == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert ours.n == 20


def test_one_value_has_no_spread():
    one = spread([3.0])
    assert (one.mean, one.n) == (3.0, 1)
    assert math.isnan(one.std)
    assert one.text() == "3.00"


def test_not_a_number_is_not_averaged_away():
    assert math.isnan(spread([1.0, math.nan]).mean)
    assert math.isnan(spread([1.0, math.inf]).std)


def test_nothing_to_average():
    with pytest.raises(InputError, match="without any value"):
        spread([])


def test_words():
    assert spread([-1.0, -3.0]).text(1, sign=True) == "−2.0 ± 1.4"
    assert spread([1.0, 3.0]).text(0, sign=True) == "+2 ± 1"
