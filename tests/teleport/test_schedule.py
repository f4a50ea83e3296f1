"""When an attempt is allowed, and that nothing is formed where none is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import equipoise as eq
from equipoise.teleport import COST
from equipoise.teleport.schedule import Counters, Schedule
from tests import problems
from tests.teleport.helpers import eager_cost, optimizer_with


def attempts(schedule: Schedule, steps: range, *, accepted: Any = lambda step: True, epoch_of: int = 10**9) -> list[int]:
    """After which steps a conflict that is always there leads to an attempt, a step costing 1 and an attempt 10."""
    counters, found = Counters(schedule), []
    for step in steps:
        counters.count_step(1.0)
        if counters.due(step, 10.0):
            counters.spent += 10.0
            counters.count_attempt(step, accepted=accepted(step))
            found.append(step)
        if step % epoch_of == epoch_of - 1:
            counters.end_epoch()
    return found


def test_no_limits() -> None:
    assert attempts(Schedule(cooldown=1, budget=None), range(5)) == [0, 1, 2, 3, 4]


def test_cooldown() -> None:
    assert attempts(Schedule(cooldown=4, budget=None), range(13)) == [0, 4, 8, 12]


def test_start_and_stop_in_epochs() -> None:
    schedule = Schedule(start=1, stop=3, cooldown=1, budget=None)
    assert attempts(schedule, range(12), epoch_of=3) == [3, 4, 5, 6, 7, 8]


def test_start_and_stop_in_steps() -> None:
    assert attempts(Schedule(start_step=3, stop_step=6, cooldown=1, budget=None), range(12)) == [3, 4, 5]


def test_attempts_an_epoch() -> None:
    schedule = Schedule(per_epoch=2, cooldown=1, budget=None)
    assert attempts(schedule, range(12), epoch_of=5) == [0, 1, 5, 6, 10, 11]
    # Refused ones count as well.
    refused = attempts(Schedule(per_epoch=2, cooldown=1, budget=None), range(4), accepted=lambda step: False, epoch_of=10)
    assert refused == [0, 2]


def test_refusals_in_a_row_double_the_wait() -> None:
    assert attempts(Schedule(cooldown=3, budget=None), range(100), accepted=lambda step: False) == [0, 6, 18, 42, 90]
    # One that lands brings back the plain cool-down.
    found = attempts(Schedule(cooldown=3, budget=None), range(40), accepted=lambda step: step == 18)
    assert found[:4] == [0, 6, 18, 21]
    assert found[4] == 27


def test_the_wait_does_not_grow_for_ever() -> None:
    found = attempts(Schedule(cooldown=1, budget=None), range(1000), accepted=lambda step: False)
    assert {later - earlier for earlier, later in pairwise(found[6:])} == {64}


def test_budget() -> None:
    """A tenth of the cost of training: attempts that cost ten steps come every hundred steps, and never earlier."""
    assert attempts(Schedule(cooldown=1, budget=0.1), range(350)) == [99, 199, 299]
    for share in (0.03, 0.5, 2.0):
        found = attempts(Schedule(cooldown=1, budget=share), range(2000))
        for number, step in enumerate(found, 1):
            assert number * 10.0 <= share * (step + 1)
            assert number * 10.0 > share * step, "and never later than that"
        assert len(found) == share * 200


def test_state() -> None:
    def fresh() -> Counters:
        return Counters(Schedule(per_epoch=3, cooldown=2, budget=0.9))

    def run(counters: Counters, steps: range) -> list[int]:
        found = []
        for step in steps:
            counters.count_step(20.0)
            if counters.due(step, 10.0):
                counters.spent += 10.0
                counters.count_attempt(step, accepted=step % 5 == 0)
                found.append(step)
            if step % 17 == 16:
                counters.end_epoch()
        return found

    straight, stopped, resumed = fresh(), fresh(), fresh()
    whole = run(straight, range(100))
    first = run(stopped, range(43))
    resumed.load_state_dict(stopped.state_dict())
    assert first + run(resumed, range(43, 100)) == whole
    assert resumed.state_dict() == straight.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, "start must be a whole number from 0 on; got -1"),
        ({"start": 1.5}, "start must be a whole number from 0 on; got 1.5"),
        ({"start_step": True}, "start_step must be a whole number from 0 on; got True"),
        ({"cooldown": 0}, "cooldown must be a whole number from 1 on; got 0"),
        ({"per_epoch": 0}, "per_epoch must be a whole number from 1 on; got 0"),
        ({"start": 3, "stop": 3}, "stop=3 leaves nothing after start=3"),
        ({"start_step": 8, "stop_step": 5}, "stop_step=5 leaves nothing after start_step=8"),
        ({"budget": 0.0}, "budget must be a positive share"),
        ({"budget": float("nan")}, "budget must be a positive share"),
    ],
)
def test_wrong_limits(options: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        Schedule(**options)


# -- in a training run


def steps_of(cost: COST) -> list[int]:
    return [report.step for report in cost.attempts]


def run(cost: COST, balancer: Any = "mgda", steps: int = 12, epoch_of: int = 4) -> eq.MultiTaskOptimizer:
    mtl = optimizer_with(cost, balancer)
    for step in range(steps):
        mtl.step(problems.batch(seed=step))
        if step % epoch_of == epoch_of - 1:
            mtl.end_epoch()
    return mtl


@pytest.mark.parametrize("balancer", ["mgda", "ls"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, list(range(1, 12))),
        ({"probe_batches": 2, "held_out_batches": 3}, list(range(4, 12))),
        ({"start": 1, "stop": 2}, [4, 5, 6, 7]),
        ({"start_step": 7, "stop_step": 9}, [7, 8]),
        ({"per_epoch": 1}, [1, 4, 8]),
        ({"cooldown": 5}, [1, 6, 11]),
        ({"cooldown": 3, "per_epoch": 1, "start": 1}, [4, 8]),
    ],
)
def test_attempts_come_when_they_are_due(options: dict[str, Any], expected: list[int], balancer: str) -> None:
    cost = eager_cost(**options)
    run(cost, balancer)
    assert steps_of(cost) == expected
    assert [report.epoch for report in cost.attempts] == [step // 4 for step in expected]


def test_loss_based_balancers_are_looked_at_now_and_then() -> None:
    cost = eager_cost(check_every=4)
    run(cost, "ls")
    assert steps_of(cost) == [1, 5, 9]


class Counted:
    """Counts the Gramians that a MultiTaskOptimizer forms when asked, and evaluations of the losses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gramians = self.evaluations = 0
        formed = eq.MultiTaskOptimizer.gramian

        def counted(mtl: eq.MultiTaskOptimizer, *batches: Any) -> Any:
            self.gramians += 1
            return formed(mtl, *batches)

        monkeypatch.setattr(eq.MultiTaskOptimizer, "gramian", counted)

    def losses(self, model: Any, batch: problems.Batch) -> Any:
        self.evaluations += 1
        return problems.losses(model, batch)


@pytest.mark.parametrize("balancer", ["ls", "famo", "uw", "pcgrad", "mgda", "fairgrad"])
@pytest.mark.parametrize(
    "options", [{"start_step": 99}, {"start": 5}, {"budget": 1e-9}, {"start_step": 3, "cooldown": 99}, {"stop_step": 1}]
)
def test_nothing_is_formed_where_nothing_is_due(
    balancer: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    cost = eager_cost(**options)
    mtl, plain = (optimizer_with(teleport, balancer, losses=counted.losses) for teleport in (cost, None))
    with_cost, without = [], []
    for step in range(6):
        for optimizer, found in ((mtl, with_cost), (plain, without)):
            counted.gramians = counted.evaluations = 0
            optimizer.step(problems.batch(seed=step))
            found.append((counted.gramians, counted.evaluations))
    due = set(steps_of(cost))
    assert due == ({3} if options.get("start_step") == 3 else set())
    assert [found for step, found in enumerate(with_cost) if step not in due] == [
        found for step, found in enumerate(without) if step not in due
    ]


def test_a_conflict_that_is_not_there_costs_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    asked = []
    cost = eager_cost(lambda gramian: asked.append(gramian))
    mtl = optimizer_with(cost, "mgda", losses=counted.losses)
    for step in range(5):
        mtl.step(problems.batch(seed=step))
    assert len(asked) == 4
    assert counted.gramians == 0
    assert counted.evaluations == 5
    assert cost.attempts == []


@pytest.mark.parametrize("balancer", ["ls", "mgda"])
def test_the_budget_is_kept(balancer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of the losses beyond those of training stay within the share; backward passes are estimated alike."""
    counted = Counted(monkeypatch)
    cost = eager_cost(budget=0.5, steps=2, check_every=10)
    mtl = optimizer_with(cost, balancer, losses=counted.losses)
    for step in range(120):
        mtl.step(problems.batch(seed=step))
    assert len(cost.attempts) >= 2
    assert cost._counters.spent <= 0.5 * cost._counters.trained
    # Forward evaluations are about a third of what is counted for equal weighting, a seventh for a Gramian of three tasks.
    assert counted.evaluations - 120 <= 120 * (1 + 2 * (1 if balancer == "ls" else 3)) * 0.5


def test_looks_that_find_no_conflict_cost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes a forward pass and three backward ones, which count for seven evaluations; a training step for three."""
    counted = Counted(monkeypatch)
    mtl = optimizer_with(eager_cost(lambda gramian: False, budget=0.5, check_every=1, samples=1, steps=1), "ls")
    for step in range(60):
        mtl.step(problems.batch(seed=step))
    assert 1 <= counted.gramians <= 0.5 * 3 * 60 / 7
