import pytest

from equipoise.errors import InputError
from equipoise.metrics import Metric


def test_direction_is_required():
    with pytest.raises(InputError, match='metric "accuracy" has no direction; say higher_is_better=True or'):
        Metric("accuracy", "left")


@pytest.mark.parametrize("given", [None, 1, "yes"])
def test_direction_must_be_a_truth_value(given):
    with pytest.raises(InputError, match=f"given: {given!r}"):
        Metric("accuracy", "left", higher_is_better=given)


def test_words():
    metric = Metric("abs", "depth", higher_is_better=False, unit="m", label="absolute error")
    assert metric.quantity == "absolute error (m)"
    assert metric.heading == "absolute error (m) ↓"
    assert Metric("acc", "left", higher_is_better=True).heading == "acc ↑"
