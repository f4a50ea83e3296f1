"""A report says why a method with teleports made no attempt, not only that there were 0."""

from __future__ import annotations

import json

import pytest
import torch

import equipoise as eq
from equipoise.study import Results
from equipoise.study.report.teleports import teleport_table
from equipoise.teleport import COST, Probes, Schedule
from tests.study.conftest import made_up  # noqa: F401

STEPS = 6


def waits(schedule: Schedule, *, agree: bool = False, balancer: str = "fairgrad") -> dict[str, int]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    sign = 1.0 if agree else -1.0

    def losses(model, batch):
        out = model(batch).sum(1).mean()
        return {"a": (out - 50.0).square(), "b": (out - sign * 50.0).square()}

    cost = COST(schedule=schedule, probes=Probes("recent", probe_batches=1, held_out_batches=1))
    objective = eq.Objective(model, losses)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 1e-6), balancer, teleport=cost)
    for _ in range(STEPS):
        mtl.step(torch.rand(4, 3))
    assert not cost.attempts
    assert sum(cost.waits.values()) == STEPS
    return cost.waits


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        (Schedule(start=50), "before its start"),
        (Schedule(start_step=50, budget=None), "before its start"),
        (Schedule(budget=1e-6), "beyond the budget"),
    ],
)
def test_the_schedule(schedule, why) -> None:
    assert why in waits(schedule)


def test_no_conflict() -> None:
    assert "no conflict" in waits(Schedule(budget=None), agree=True)


def test_looks_are_rare_where_no_gramian_is_formed() -> None:
    own = waits(Schedule(budget=None, check_every=100), agree=True, balancer="ls")
    assert own["no conflict"] == 1
    assert "not looked for conflict" in own


def test_the_report_says_why(made_up) -> None:  # noqa: F811
    folder = made_up(methods=("ls", "cost+ls"), attempts=0)
    for seed, own in enumerate([{"beyond the budget": 14, "no conflict": 1}, {"beyond the budget": 15}, {}]):
        path = folder / "runs" / f"1-seed{seed}.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"waits": own}))
    (row,) = teleport_table(Results(folder)).rows
    assert row[2] == "0.0: beyond the budget 29, no conflict 1"
