"""What an attempt reports, against a computation by hand at θ and at θ + Δθ."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from equipoise.teleport import Dense, LowRank, TeleportReport
from tests import problems
from tests.teleport.helpers import always, eager_cost, optimizer_with, shared_names, task_gradients


def looked_at(model: torch.nn.Module, values: dict[str, Tensor], shared: list[str], batches: list[Any]) -> dict[str, Tensor]:
    """Losses, norms and cosines with the mean, averaged over batches, in float64."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in values.items()}
    losses: list[Tensor] = []
    rows: list[Tensor] = []
    for batch in batches:
        found = problems.losses(lambda inputs: functional_call(model, leaves, (inputs,)), batch)  # type: ignore[arg-type]
        losses.append(torch.stack([loss.detach().double() for loss in found.values()]))
        rows.append(task_gradients(found, [leaves[name] for name in shared]))
    gradients = torch.stack(rows).mean(0)
    mean = gradients.mean(0)
    return {
        "losses": torch.stack(losses).mean(0),
        "norms": gradients.norm(dim=1),
        "cosines": gradients @ mean / (gradients.norm(dim=1) * mean.norm()),
    }


@pytest.mark.parametrize(  # any two choices occur together
    ("balancer", "held_out", "micro_batches", "delta"),
    [
        (balancer, held_out, micro_batches, (LowRank(rank=2), Dense())[(i + j + micro_batches) % 2])
        for i, balancer in enumerate(["mgda", "ls"])
        for j, held_out in enumerate([0, 1, 3])
        for micro_batches in (1, 2)
    ],
    ids=str,
)
def test_every_number_of_an_attempt(balancer: str, held_out: int, micro_batches: int, delta: Any) -> None:
    """The steps themselves move nothing, so that the parameters after one are those at the new point."""
    before: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def note(gramian: Any) -> bool:
        model = mtl.objective.model
        before.update(problems.parameters_of(model))
        gradients.update({name: own.grad.clone() for name, own in model.named_parameters() if own.grad is not None})
        return True

    cost = eager_cost(note, delta=delta, probe_batches=2, held_out_batches=held_out, steps=4)
    mtl = optimizer_with(cost, balancer, make=torch.optim.Adam, lr=0.0)
    steps = [[problems.batch(seed=10 * step + part) for part in range(micro_batches)] for step in range(6)]
    for number, batches in enumerate(steps):
        returned = mtl.step(*batches)
        assert mtl.last is not None
        assert mtl.last.teleport is (cost.attempts[-1] if cost.attempts else None)
        if number < 1 + held_out:
            assert cost.attempts == []
            continue
        report, model = cost.attempts[-1], mtl.objective.model
        after = problems.parameters_of(model)
        newest_first = steps[number::-1]
        judged = newest_first[2 : 2 + held_out] or newest_first[:1]
        shared = shared_names(mtl)
        for when, values in (("before", before), ("after", after)):
            for of, looked in (("", [batch for step in judged for batch in step]), ("batch_", batches)):
                expected = looked_at(model, values, shared, looked)
                for what, tensor in expected.items():
                    found = getattr(report, f"{of}{what}_{when}")
                    assert found == pytest.approx(tensor.tolist(), rel=2e-4, abs=1e-5), (of, what, when)
                if not of:  # the function that asked has no measure of its own: it is the smallest cosine's
                    measure = pytest.approx(-float(expected["cosines"].min()), rel=2e-4, abs=1e-5)
                    assert getattr(report, f"measure_{when}") == measure
        # What the step itself tells is of the new point.
        assert [float(loss) for loss in returned.values()] == pytest.approx(report.batch_losses_after, rel=1e-5)
        if balancer == "mgda":
            assert mtl.last.norms is not None
            assert mtl.last.norms.tolist() == pytest.approx(report.batch_norms_after)
        moved = torch.cat([(after[name] - before[name]).double().flatten() for name in shared])
        update = torch.cat([gradients[name].double().flatten() for name in shared])
        assert report.distance == pytest.approx(float(moved.norm()), rel=1e-4)
        assert report.sigma == pytest.approx(float(moved @ update / (moved.norm() * update.norm())), rel=1e-3, abs=1e-5)
        ratios = torch.tensor(report.norms_after) / torch.tensor(report.norms_before)
        assert report.growth == pytest.approx(float(ratios.log().mean().exp()), rel=1e-5)
        assert (report.step, report.epoch, report.trigger) == (number, 0, "note")
        assert report.tasks == report.batch_tasks == ("t0", "t1", "t2")
        assert len(report.invariance) == len(report.reward) == 4
        assert report.invariance[0] == 0.0
        assert report.seconds > 0
    assert len(cost.attempts) == 6 - 1 - held_out


@pytest.mark.parametrize("name", ["dominated", "weak", "majority", "released"])
def test_the_trigger_is_named_and_gives_the_measure(name: str) -> None:
    cost = eager_cost(name, delta=Dense())
    train_until_attempted(cost)
    report = cost.attempts[-1]
    assert report.trigger == name
    cosines = report.cosines_before
    if name == "dominated":
        assert report.measure_before == pytest.approx(-cosines[report.norms_before.index(min(report.norms_before))])
    elif name == "majority":
        assert report.measure_before == pytest.approx(-sorted(cosines)[1])
    elif name == "released":
        assert report.measure_before == pytest.approx(-min(cosines))


def train_until_attempted(cost: Any, tasks: int = 3) -> None:
    torch.manual_seed(0)
    mtl = optimizer_with(cost, "mgda", problems.Heads(tasks))
    for step in range(60):
        mtl.step(problems.batch(tasks=tasks, seed=step))
        if cost.attempts:
            return
    raise AssertionError("no conflict in sixty steps")


@pytest.mark.parametrize(("tasks", "name"), [(3, "dominated"), (9, "dominated"), (10, "majority")])
def test_the_default_trigger(tasks: int, name: str) -> None:
    cost = eager_cost(None, delta=Dense())
    train_until_attempted(cost, tasks)
    assert cost.attempts[-1].trigger == name


def test_the_released_formulation_brings_its_trigger_unless_another_is_given() -> None:
    cost = eager_cost(None, formulation="released", delta=Dense())
    train_until_attempted(cost)
    assert cost.attempts[-1].trigger == "released"
    cost = eager_cost("weak", formulation="released", delta=Dense())
    train_until_attempted(cost)
    assert cost.attempts[-1].trigger == "weak"


@pytest.mark.parametrize("balancer", ["mgda", "ls"])
def test_the_trigger_sees_the_gramian_at_the_parameters_before_the_step(balancer: str) -> None:
    seen: list[Any] = []

    def note(gramian: Any) -> bool:
        seen.append(gramian.copy())
        return False

    mtl = optimizer_with(eager_cost(note), balancer)
    for step in range(4):
        there = mtl.gramian(problems.batch(seed=step)).numpy()
        mtl.step(problems.batch(seed=step))
        if step:
            assert (seen[-1] == there).all()
    assert len(seen) == 3


def test_a_report_of_an_earlier_version() -> None:
    """It knows nothing of the step's own batches."""
    cost = eager_cost(always)
    mtl = optimizer_with(cost)
    for step in range(2):
        mtl.step(problems.batch(seed=step))
    entries = {name: value for name, value in cost.attempts[0].as_dict().items() if not name.startswith("batch_")}
    assert TeleportReport.from_dict(entries).batch_norms_after == ()


def test_the_history_is_a_list_of_reports_with_a_short_description() -> None:
    cost = eager_cost(always)
    mtl = optimizer_with(cost)
    for step in range(3):
        mtl.step(problems.batch(seed=step))
    assert all(isinstance(report, TeleportReport) for report in cost.attempts)
    assert [TeleportReport.from_dict(report.as_dict()) for report in cost.attempts] == cost.attempts
    assert "2 attempts" in repr(cost)
    assert all(math.isfinite(number) for number in cost.attempts[-1].reward)
