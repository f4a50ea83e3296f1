import math

import pytest

from equipoise.errors import InputError
from equipoise.metrics import Metric, mean_rank

METRICS = [Metric("up", "a", higher_is_better=True), Metric("down", "b", higher_is_better=False)]


def test_ranks_follow_direction():
    ranks = mean_rank({"x": {"up": 3, "down": 1}, "y": {"up": 2, "down": 2}, "z": {"up": 1, "down": 3}}, METRICS)
    assert ranks == {"x": 1.0, "y": 2.0, "z": 3.0}


def test_ties_share_their_ranks():
    ranks = mean_rank({"x": {"up": 1, "down": 1}, "y": {"up": 1, "down": 1}, "z": {"up": 0, "down": 1}}, METRICS)
    assert ranks == {"x": (1.5 + 2) / 2, "y": (1.5 + 2) / 2, "z": (3 + 2) / 2}


def test_sum_of_ranks_is_that_of_the_positions():
    values = {name: {"up": (7 * place) % 5, "down": (3 * place) % 4} for place, name in enumerate("abcdefg")}
    assert sum(mean_rank(values, METRICS).values()) == pytest.approx(7 * 8 / 2)


def test_what_is_not_a_number_comes_last():
    ranks = mean_rank({"x": {"up": math.nan, "down": math.nan}, "y": {"up": -1e9, "down": 1e9}}, METRICS)
    assert ranks == {"x": 2.0, "y": 1.0}


def test_bad_input():
    with pytest.raises(InputError, match='"x" has no value for metric "down"'):
        mean_rank({"x": {"up": 1}}, METRICS)
    with pytest.raises(InputError, match="without any metric"):
        mean_rank({"x": {"up": 1}}, [])
