import itertools

import numpy as np
import pytest

from equipoise.study.records import Points

AGREE = np.array([[1.0, 0.5], [0.5, 9.0]])


def test_never_more_than_asked_for_and_evenly_spaced():
    for offered in (1, 7, 300, 301, 5000):
        points = Points(most=300)
        for step in range(offered):
            points.see({"a": 1.0, "b": 1.0})
            points.add(step, 1 + step // 100, {"a": 1.0, "b": 1.0}, AGREE)
        steps = points.summary()["step"]
        assert len(steps) == offered if offered <= 300 else 150 <= len(steps) <= 300
        assert len({later - earlier for earlier, later in itertools.pairwise(steps)}) <= 1
        assert points.summary()["epoch"] == [1 + step // 100 for step in steps]


def test_losses_are_scaled_by_each_tasks_first_one():
    points = Points()
    points.see({"a": 1000.0})
    points.see({"a": 500.0, "b": -0.1})
    points.add(1, 1, {"a": 500.0, "b": -0.1}, AGREE)
    points.see({"a": 250.0, "b": 0.2})
    points.add(2, 1, {"b": 0.2, "a": 250.0}, AGREE)
    summary = points.summary()
    assert summary["scales"] == {"a": 1000.0, "b": 0.1}
    assert summary["loss"] == pytest.approx([(0.5 - 1) / 2, (0.25 + 2) / 2])


def test_cosine_is_that_of_the_smallest_gradient_with_the_mean():
    gradients = np.array([[3.0, 0.0], [-0.4, 0.3], [0.0, 2.0]])
    mean = gradients.mean(0)
    expected = gradients[1] @ mean / np.linalg.norm(gradients[1]) / np.linalg.norm(mean)
    points = Points()
    losses = dict.fromkeys("abc", 1.0)
    points.see(losses)
    points.add(0, 1, losses, gradients @ gradients.T)
    assert points.summary()["cosine"] == pytest.approx([expected], rel=1e-5)
    assert expected < 0


def test_nothing_to_show():
    points = Points()
    assert points.summary() is None
    points.see({"a": 1.0})
    points.add(0, 1, {"a": 1.0}, np.array([[1.0]]))  # one task cannot conflict
    assert points.summary() is None


def test_a_first_loss_of_zero():
    points = Points()
    points.see({"a": 0.0, "b": 2.0})
    points.add(0, 1, {"a": 0.0, "b": 2.0}, AGREE)
    assert points.summary()["loss"] == [0.5]
