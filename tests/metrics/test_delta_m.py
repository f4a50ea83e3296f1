import math

import pytest

from equipoise.errors import InputError
from equipoise.metrics import Metric, delta_m

SEGMENTATION = [
    Metric("mIoU", "segmentation", higher_is_better=True),
    Metric("pixel accuracy", "segmentation", higher_is_better=True),
    Metric("absolute error", "depth", higher_is_better=False),
    Metric("relative error", "depth", higher_is_better=False),
]


def values(*numbers):
    return dict(zip((metric.name for metric in SEGMENTATION), numbers, strict=True))


def test_published_row():
    """Linear scalarisation on Cityscapes: the metrics printed in the papers' tables give the Δm printed beside them."""
    single = values(74.01, 93.16, 0.0125, 27.77)
    assert delta_m(values(75.18, 93.49, 0.0155, 46.77), single, SEGMENTATION) == pytest.approx(22.60, abs=0.2)


def test_sign_follows_direction():
    worse = delta_m(values(90, 90, 1.1, 1.1), values(100, 100, 1, 1), SEGMENTATION)
    better = delta_m(values(110, 110, 0.9, 0.9), values(100, 100, 1, 1), SEGMENTATION)
    assert worse == pytest.approx(10)
    assert better == pytest.approx(-10)


def test_average_over_tasks():
    metrics = SEGMENTATION[1:]
    results, single = values(0, 90, 1.2, 1.4), values(0, 100, 1, 1)
    assert delta_m(results, single, metrics) == pytest.approx((10 + 20 + 40) / 3)
    assert delta_m(results, single, metrics, average="tasks") == pytest.approx((10 + 30) / 2)
    with pytest.raises(InputError, match='"metrics" or "tasks"'):
        delta_m(results, single, metrics, average="classes")


def test_negative_metrics_keep_their_direction():
    likelihood = [Metric("log-likelihood", "density", higher_is_better=True)]
    assert delta_m({"log-likelihood": -3.0}, {"log-likelihood": -2.0}, likelihood) == pytest.approx(50)


@pytest.mark.parametrize("base", [0.0, math.nan, math.inf])
def test_baseline_that_nothing_is_relative_to(base):
    with pytest.raises(InputError, match='baseline of metric "mIoU"'):
        delta_m(values(1, 1, 1, 1), values(base, 1, 1, 1), SEGMENTATION)


def test_training_that_went_wrong_has_no_mean():
    assert math.isnan(delta_m(values(math.nan, 1, 1, 1), values(1, 1, 1, 1), SEGMENTATION))
    assert math.isnan(delta_m(values(1, 1, math.inf, 1), values(1, 1, 1, 1), SEGMENTATION, average="tasks"))


def test_missing_value_and_missing_metrics():
    with pytest.raises(InputError, match='results have no value for metric "mIoU"'):
        delta_m({}, values(1, 1, 1, 1), SEGMENTATION)
    with pytest.raises(InputError, match='baseline have no value for metric "mIoU"'):
        delta_m(values(1, 1, 1, 1), {}, SEGMENTATION)
    with pytest.raises(InputError, match="without any metric"):
        delta_m({}, {}, [])
