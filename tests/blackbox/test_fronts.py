"""Archives, fronts on one budget, restarts, whole numbers, tensors, and evaluations that are not waited for."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.blackbox import front, minimize, preferences, restarted, undominated
from equipoise.blackbox.archive import Archive
from equipoise.errors import InputError


def quadratics(x):
    return np.stack([((x - 1) ** 2).mean(-1), ((x + 1) ** 2).mean(-1)], axis=-1)


def by_pairs(outputs):
    """Straight from the definition, the first of equal rows counting as better."""

    def beats(one, other):
        a, b = outputs[one], outputs[other]
        return (a <= b).all() and ((a < b).any() or one < other)

    return [not any(beats(one, row) for one in range(len(outputs)) if one != row) for row in range(len(outputs))]


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4), st.integers(2, 5))
def test_a_front_is_what_no_other_point_dominates(seed: int, rows: int, objectives: int, levels: int) -> None:
    outputs = np.random.default_rng(seed).integers(0, levels, (rows, objectives)).astype(float)
    assert undominated(outputs).tolist() == by_pairs(outputs)
    archive = Archive("front")
    for start in range(0, rows, 3):
        part = outputs[start : start + 3]
        archive.add(np.arange(start, start + len(part), dtype=float)[:, None], part)
    points, kept = archive.arrays()
    assert sorted(map(tuple, kept)) == sorted(map(tuple, outputs[by_pairs(outputs)]))
    np.testing.assert_array_equal(outputs[points[:, 0].astype(int)], kept)


def test_what_was_evaluated_is_in_the_result(tmp_path) -> None:
    seen = []

    def f(x):
        seen.append(x.copy())
        return quadratics(x) if x[0, 0] < 4.5 else np.full((len(x), 2), np.nan)

    options = {"batched": True, "samples": 8, "seed": 0, "archive": "all"}
    whole = minimize(f, np.full(3, 3.0), iterations=6, **options)
    every = np.concatenate(seen)
    good = np.isfinite(whole.outputs).all(axis=1)
    assert good.all()
    assert len(whole.points) == len(every) - whole.failures.total
    np.testing.assert_array_equal(quadratics(whole.points), whole.outputs)
    minimize(quadratics, np.full(3, 3.0), iterations=3, checkpoint=tmp_path / "search", **options)
    rest = minimize(quadratics, np.full(3, 3.0), iterations=6, checkpoint=tmp_path / "search", **options)
    straight = minimize(quadratics, np.full(3, 3.0), iterations=6, **options)
    np.testing.assert_array_equal(rest.points, straight.points)
    np.testing.assert_array_equal(rest.outputs, straight.outputs)
    assert minimize(quadratics, np.full(3, 3.0), iterations=2, samples=8, seed=0, batched=True).points.size == 0
    with pytest.raises(InputError, match="archive is 'best'"):
        minimize(quadratics, np.zeros(3), archive="best")  # type: ignore[arg-type]


@given(st.integers(1, 14), st.integers(2, 4))
def test_preferences_cover_the_simplex(count: int, objectives: int) -> None:
    rows = preferences(count, objectives)
    assert rows.shape == (count, objectives)
    assert (rows > 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert len({tuple(row) for row in rows}) == count
    np.testing.assert_allclose(rows[0], 1.0 / objectives)


def test_a_front_lies_where_its_preferences_ask_for_it(tmp_path) -> None:
    """For these two, x = (2λ₁ − 1)(1, …, 1) minimises λᵀF."""
    options = {"points": 3, "evaluations": 6000, "samples": 10, "lr": 0.3, "seed": 0, "batched": True}
    found = front(quadratics, np.full(4, 3.0), checkpoint=tmp_path / "front", **options)
    np.testing.assert_allclose(found.x, (2 * found.preferences[:, :1] - 1) * np.ones(4), atol=0.15)
    np.testing.assert_array_equal(found.outputs, quadratics(found.x))
    assert found.evaluations <= 6000
    assert undominated(found.outputs_of_points).all()
    again = front(quadratics, np.full(4, 3.0), checkpoint=tmp_path / "front", **options)  # nothing is left to do
    np.testing.assert_array_equal(again.x, found.x)
    chosen = front(quadratics, np.full(4, 3.0), preferences=[[0.8, 0.2]], **{**options, "evaluations": 4000})
    np.testing.assert_allclose(chosen.x, 0.6 * np.ones((1, 4)), atol=0.15)
    for wrong, said in (
        ({"points": 0}, "points is 0"),
        ({"evaluations": 50}, "at least 83 evaluations"),
        ({"preferences": [[1.0, 1.0]]}, "of sum 1"),
        ({"weights": [0.5, 0.5]}, "give preferences="),
    ):
        with pytest.raises(InputError, match=said):
            front(quadratics, np.zeros(4), **{**options, **wrong})


def gaussians(x):
    """A front that bends inwards, between x = -c and x = c with c = (1, …, 1)/√d."""
    center = 1 / np.sqrt(x.shape[-1])
    return np.stack([1 - np.exp(-((x - sign * center) ** 2).sum(-1)) for sign in (1, -1)], axis=-1)


def _failing(x):
    raise ValueError("nothing here")


@pytest.mark.parametrize("given", [None, [[0.5, 0.5], [0.3, 0.7]]])
def test_preferences_reach_a_front_that_bends_inwards(given, tmp_path) -> None:
    options = {"points": 5, "evaluations": 6000, "samples": 20, "std": 0.2, "seed": 0, "batched": True, "preferences": given}
    options |= {"scalarization": "tchebycheff", "checkpoint": tmp_path / "front"}
    found = front(gaussians, np.full(4, 0.15), **options)
    line = np.linspace(-1, 1, 2001)
    curve = np.stack([1 - np.exp(-((line - sign) ** 2)) for sign in (1, -1)], axis=1)
    assert np.sqrt(((found.outputs[:, None] - curve) ** 2).sum(axis=2)).min(axis=1).max() < 0.03
    # λ₁F₁ = λ₂F₂ (both run from 0 to 0.98 along the front), where the preference is no end.
    middle = found.preferences.max(axis=1) < 0.9
    share = found.outputs[:, 0] / found.outputs.sum(axis=1)
    np.testing.assert_allclose(share[middle], found.preferences[middle, 1], atol=0.05)
    assert found.evaluations <= 6000
    again = front(gaussians, np.full(4, 0.15), **options)
    np.testing.assert_array_equal(again.outputs, found.outputs)
    if given is None:
        sums = front(gaussians, np.full(4, 0.15), **{**options, "scalarization": "sum", "checkpoint": None})
        assert (np.abs(sums.outputs - 0.63) > 0.01).any(axis=1).all()
        assert np.sort(sums.outputs[:, 0])[2] < 0.1  # most have slid down to one end
        for wrong, said in (
            ({"scalarization": "max"}, "scalarization is"),
            ({"evaluations": 200}, "at least"),
            ({"ideal": [0, 0]}, "give preferences="),
        ):
            with pytest.raises(InputError, match=said):
                front(gaussians, np.zeros(4), **{**options, **wrong})
        with pytest.raises(InputError, match="no outputs at x0"):
            front(_failing, np.zeros(4), **{**options, "batched": False})
        for bad in ({"ideal": [0.0, 0.0]}, {"ideal": [0.0], "weights": [0.5, 0.5]}):
            with pytest.raises(InputError, match="fixed weights"):
                minimize(gaussians, np.zeros(4), **bad)


def test_restarts_share_a_budget_and_leave_a_bad_valley() -> None:
    def f(x):
        return [min(((x + 3) ** 2).sum() + 1, ((x - 3) ** 2).sum())]

    options = {"std": 4.0, "samples": 10, "lr": 0.1, "seed": 1, "archive": "all"}
    several = restarted(f, np.full(2, -3.0), "es", restarts=3, evaluations=2000, **options)
    assert several.evaluations == 2000
    assert len(several.points) == 2000
    assert several.best_outputs is not None
    assert several.best_outputs[0] == several.outputs.min()
    inside = restarted(f, np.zeros(2), "es", restarts=2, evaluations=60, bounds=(-1.0, None), **options)
    assert (inside.points >= -1).all()
    for wrong, said in (
        ({"restarts": -1}, "restarts is -1"),
        ({"restarts": 1.5}, "restarts is 1.5"),
        ({"bounds": (0, 1, 2)}, "bounds is"),
        ({"checkpoint": "unused"}, "needs seed="),
    ):
        with pytest.raises(InputError, match=said):
            restarted(f, np.zeros(2), **wrong)
    for wrong, said in (({"points": -1}, "points is -1"), ({"points": 2.5}, "points is 2.5"), ({"archive": "all"}, "archive=")):
        with pytest.raises(InputError, match=said):
            front(quadratics, np.zeros(2), **wrong)


def test_ctrl_c_ends_several_searches_which_go_on_from_there(tmp_path) -> None:
    options = {"points": 3, "evaluations": 600, "samples": 10, "seed": 0}
    whole = front(quadratics, np.full(3, 2.0), **options)
    calls = iter(range(10_000))

    def impatient(x):
        if next(calls) == 405:
            raise KeyboardInterrupt
        return quadratics(x)

    with pytest.raises(KeyboardInterrupt):
        front(impatient, np.full(3, 2.0), checkpoint=tmp_path / "front.npz", **options)
    assert next(calls) == 406  # no further search was begun
    resumed = front(quadratics, np.full(3, 2.0), checkpoint=tmp_path / "front.npz", **options)
    assert np.array_equal(whole.x, resumed.x)
    assert np.array_equal(whole.points, resumed.points)

    calls = iter(range(10_000))
    same = {"restarts": 2, "evaluations": 600, "samples": 10, "seed": 0, "checkpoint": tmp_path / "restarts.npz"}
    assert restarted(impatient, np.full(3, 2.0), **same).stopped == "interrupted"
    assert next(calls) == 406
    whole = restarted(quadratics, np.full(3, 2.0), **{**same, "checkpoint": None})
    assert np.array_equal(whole.x, restarted(quadratics, np.full(3, 2.0), **same).x)


def test_single_precision_starts_stay_inside_the_bounds() -> None:
    options = {"bounds": (-0.1, 0.1), "std": 10.0, "samples": 4, "seed": 0, "tensors": True}  # 0.1 rounds upwards
    start = torch.zeros(2)
    assert restarted(quadratics, start, restarts=3, evaluations=40, **options).iterations > 0
    found = front(quadratics, torch.zeros(2), points=3, evaluations=60, lr=1.0, **options)
    assert (abs(found.x) <= 0.1).all()
    whole = torch.zeros(2, dtype=torch.long)  # which the second search is not rounded to
    ends = [front(quadratics, x0, points=2, evaluations=200, seed=0, std=0.1).x for x0 in (whole, np.zeros(2))]
    assert np.array_equal(*ends)


def test_restarts_are_judged_by_the_weights_that_were_given() -> None:
    options = {"weights": [1.0, 0.0], "std": 20.0, "samples": 10, "seed": 0}
    found = restarted(lambda x: [-x[0], 3.0 * x[0]], np.zeros(1), restarts=4, evaluations=100, archive="all", **options)
    assert found.best_outputs is not None
    assert found.best_outputs[0] == found.outputs[:, 0].min()  # the mean would have it the other way round


def test_failures_that_come_at_once_are_no_quorum() -> None:
    """With half of the points failing at once, a half that is waited for would be failures alone."""

    def f(x):
        if x[0] < 0:
            raise ValueError("outside")
        time.sleep(0.02)
        return quadratics(x)

    found = minimize(f, np.zeros(2), iterations=3, samples=12, seed=0, workers=12, backend="threads", quorum=0.5)
    assert all(np.isfinite(found.objectives).all(axis=1))
    assert len(found.objectives) == 3


def test_whole_numbers() -> None:
    seen = []

    def f(x):
        seen.append(x.copy())
        return np.stack([((x - [2.3, 0.5]) ** 2).sum(-1), np.abs(x - [2.6, 0.5]).sum(-1)], axis=-1)

    box = ([-0.5, -np.inf], 5.7)
    found = minimize(f, [0.0, 0.0], iterations=60, samples=20, seed=0, batched=True, integers=[0], bounds=box)
    values = np.concatenate(seen)[:, 0]
    assert set(values) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert found.x[0] in (2.0, 3.0)
    assert found.x[1] == pytest.approx(0.5, abs=0.1)
    assert float(found.best[0]).is_integer()
    with pytest.raises(InputError, match="from 0 to 1"):
        minimize(f, [0.0, 0.0], integers=[2])
    with pytest.raises(InputError, match="no whole number"):
        minimize(f, [0.5, 0.0], integers=[0], bounds=([0.2, -1], [0.8, 1]))


def test_tensors_stay_where_they_are() -> None:
    kinds = set()

    def f(x):
        kinds.add((type(x), x.dtype, x.device))
        return torch.stack([(x - 1).square().mean(-1), (x + 1).square().mean(-1)], dim=-1)

    start = torch.full((4,), 3.0, dtype=torch.float32)
    found = minimize(f, start, iterations=5, samples=6, seed=0, batched=True, tensors=True)
    assert kinds == {(torch.Tensor, torch.float32, start.device)}
    arrays = minimize(quadratics, start, iterations=5, samples=6, seed=0, batched=True)
    np.testing.assert_allclose(found.x, arrays.x, rtol=1e-4)
    with pytest.raises(InputError, match="give x0 as a floating-point tensor"):
        minimize(f, np.zeros(4), tensors=True)


def test_one_straggler_does_not_stop_the_others() -> None:
    """The first evaluation waits until two later iterations are done: whoever waited for it would wait for ever."""
    release, first = threading.Event(), threading.Lock()

    def f(x):
        if first.acquire(blocking=False):
            assert release.wait(60)
            return [-100.0, -100.0]
        return quadratics(x)

    def watch(at):
        if at.iteration == 3:
            release.set()

    found = minimize(
        f,
        np.full(3, 3.0),
        iterations=200,
        samples=8,
        seed=0,
        workers=3,
        backend="threads",
        quorum=0.75,
        archive="front",
        callback=lambda at: watch(at) or bool((at.optimizer.best_outputs == -100.0).all()),
    )
    assert found.iterations > 3
    assert found.failures.counts["late"] >= 1
    assert found.best_outputs.tolist() == [-100.0, -100.0]  # what came late counts all the same
    assert [-100.0, -100.0] in found.outputs.tolist()


def test_a_process_that_is_late_is_not_waited_for_at_the_end() -> None:
    def f(x):
        import time

        if x[0] > 3.0:
            time.sleep(600)
        return [float(((x - 1) ** 2).sum()), float(((x + 1) ** 2).sum())]

    found = minimize(f, np.full(2, 2.0), iterations=1, samples=6, std=0.9, seed=3, workers=4, quorum=0.4)
    assert found.iterations == 1
    for wrong in ({"quorum": 0}, {"quorum": 0.5}, {"quorum": 0.5, "workers": 2, "failed": "penalize"}):
        with pytest.raises(InputError, match="quorum"):
            minimize(f, np.zeros(2), **wrong)
