import math

import pytest

from equipoise.errors import InputError
from equipoise.metrics import Metric
from equipoise.sweep.objectives import drop, find_metric, parse_objectives

METRICS = (
    Metric("left", "left", higher_is_better=True, unit="%", label="left accuracy"),
    Metric("ink", "ink", higher_is_better=False, label="ink error"),
)
BASELINE = {"left": 80.0, "ink": 0.5}


def test_names_and_labels_are_understood_with_their_directions():
    for text in ("left,ink", "left accuracy, ink error", ["left", "ink error"]):
        assert [(own.name, own.direction) for own in parse_objectives(text, METRICS)] == [
            ("left", "maximize"),
            ("ink", "minimize"),
        ]
    (only,) = parse_objectives("delta_m", METRICS)
    assert (only.name, only.direction, only.metrics) == ("delta_m", "minimize", METRICS)
    assert find_metric("ink error", METRICS).name == "ink"


def test_values():
    objective, left = parse_objectives("delta-m,left", METRICS)
    assert objective.value({"left": 72.0, "ink": 0.55}, BASELINE) == pytest.approx(10.0)
    assert left.value({"left": 72.0, "ink": 0.55}, BASELINE) == 72.0
    assert math.isnan(objective.value({"left": None, "ink": 0.5}, BASELINE))
    assert drop(0.55, 0.5, METRICS[1]) == pytest.approx(10.0)
    assert drop(88.0, 80.0, METRICS[0]) == pytest.approx(-10.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "needs an objective"),
        ("left acuracy", 'no metric "left acuracy". Did you mean "left accuracy"'),
        ("left,left accuracy", "given twice"),
        ("delta", "delta_m"),
    ],
)
def test_unknown_metrics_are_refused_in_one_line(given, said):
    with pytest.raises(InputError) as raised:
        parse_objectives(given, METRICS)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
