import numpy as np
import pytest

from equipoise.errors import InputError
from equipoise.metrics import ConflictTally
from equipoise.solvers import pareto_distance


def test_agrees_with_the_gradients_themselves():
    generator = np.random.default_rng(0)
    tasks = ["a", "b", "c"]
    tally = ConflictTally(tasks)
    any_, smallest, conflicts, cosines, norms, pareto = [], [], [], [], [], []
    for _ in range(200):
        g = generator.normal(size=(3, 4)) * np.array([[1.0], [0.3], [5.0]])
        mean = g.mean(0)
        cosine = g @ mean / np.linalg.norm(g, axis=1) / np.linalg.norm(mean)
        any_.append((cosine < 0).any())
        smallest.append(cosine[np.linalg.norm(g, axis=1).argmin()] < 0)
        conflicts.append(cosine < 0)
        cosines.append(cosine)
        norms.append(np.linalg.norm(g, axis=1))
        pareto.append(pareto_distance(g @ g.T))
        tally.add(g @ g.T)
    summary = tally.summary()
    assert summary["steps"] == 200
    assert summary["pareto"] == pytest.approx(np.mean(pareto))
    assert summary["any"] == np.mean(any_)
    assert summary["smallest"] == np.mean(smallest)
    assert 0 < summary["smallest"] < summary["any"] < 1
    for row, task in enumerate(tasks):
        own = summary["tasks"][task]
        assert own["conflicts"] == pytest.approx(np.mean(conflicts, axis=0)[row])
        assert own["cosine"] == pytest.approx(np.mean(cosines, axis=0)[row])
        assert own["norm"] == pytest.approx(np.mean(norms, axis=0)[row])


def test_a_task_counts_in_the_steps_in_which_it_was_present():
    tally = ConflictTally(["a", "b", "c"])
    tally.add([[4.0, -1.0], [-1.0, 0.5]], ["a", "c"])
    tally.add([[1.0]], ["a"])
    summary = tally.summary()
    assert summary["steps"] == 2
    assert summary["any"] == 0.5
    assert summary["tasks"]["a"]["norm"] == pytest.approx(1.5)
    assert summary["tasks"]["c"]["conflicts"] == 1.0
    assert "b" not in summary["tasks"]


def test_zero_gradients_conflict_with_nothing():
    tally = ConflictTally(["a", "b"])
    tally.add(np.zeros((2, 2)))
    tally.add([[0.0, 0.0], [0.0, 1.0]])
    summary = tally.summary()
    assert (summary["any"], summary["smallest"]) == (0.0, 0.0)
    assert summary["tasks"]["a"] == {"conflicts": 0.0, "cosine": 0.0, "norm": 0.0}


def test_nothing_counted():
    assert ConflictTally(["a"]).summary() is None


def test_a_matrix_that_does_not_fit():
    with pytest.raises(InputError, match=r"shape \(2, 2\) does not fit"):
        ConflictTally(["a", "b", "c"]).add(np.eye(2))
    with pytest.raises(InputError, match="does not fit"):
        ConflictTally(["a", "b"]).add(np.eye(2), ["a", "z"])
