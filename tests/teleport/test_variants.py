"""COST under everything else that a training run may do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import OFT, Dense, LoHa, LowRank
from tests import problems
from tests.states import assert_same_state
from tests.teleport.helpers import always, eager_cost, optimizer_with, train


def outcome(mtl: eq.MultiTaskOptimizer) -> dict[str, Tensor]:
    return problems.parameters_of(mtl.objective.model)


# -- losses


@pytest.mark.parametrize("balancer", ["mgda", "ls", "famo"])
def test_losses_given_as_callables(balancer: str) -> None:
    def lazy(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
        return {f"t{k}": lambda k=k: problems.losses(model, batch)[f"t{k}"] for k in range(3)}

    found = []
    for losses in (lazy, problems.losses):
        # Adam would turn rounding of a gradient that is nearly zero into a whole step.
        cost = eager_cost(delta=Dense(), optimizer=torch.optim.SGD, lr=1.0)
        mtl = optimizer_with(cost, balancer, losses=losses)
        train(mtl)
        assert [report.distance > 1e-3 for report in cost.attempts] == [True] * 5
        found.append(outcome(mtl))
    assert problems.same(*found, atol=1e-5)


LABELS = (("t0", "t1", "t2"), ("t0", "t1"), ("t1", "t2"), ("t0", "t1", "t2"), ("t2",), ("t0", "t2"))


def partly(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    found = problems.losses(model, batch[:2])
    return {name: found[name] for name in batch[2]}


@pytest.mark.parametrize("formulation", ["paper", "released"])
@pytest.mark.parametrize("balancer", ["mgda", "ls"])
def test_batches_that_lack_tasks(balancer: str, formulation: str) -> None:
    cost = eager_cost(delta=Dense(), formulation=formulation, probe_batches=2, held_out_batches=2, guard=True, tolerance=1.0)
    mtl = optimizer_with(cost, balancer, losses=partly, tasks=["t0", "t1", "t2"], make=torch.optim.Adam)
    for step in range(18):
        mtl.step((*problems.batch(seed=step), LABELS[step % 6]))
    assert len(cost.attempts) >= 3
    for report in cost.attempts:
        assert set(report.tasks) == {name for step in (report.step - 2, report.step - 3) for name in LABELS[step % 6]}
        assert len(report.losses_before) == len(report.norms_before) == len(report.tasks)
        assert all(map(torch.isfinite, map(torch.tensor, report.reward)))


def test_a_task_that_only_the_judging_batches_hold_does_not_decide_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss was never measured by the search, so its size must come from elsewhere than from nothing."""
    seen: list[Any] = []
    cost = eager_cost(delta=Dense())
    balance = type(cost.search.sought).balance
    monkeypatch.setattr(type(cost.search.sought), "balance", lambda self, norms: seen.append(norms) or balance(self, norms))
    mtl = optimizer_with(cost, losses=partly, tasks=["t0", "t1", "t2"])
    mtl.step((*problems.batch(seed=0), ("t0", "t1", "t2")))
    mtl.step((*problems.batch(seed=1), ("t0", "t1")))
    assert len(cost.attempts) == 1
    assert max(seen[0]) < 1e6


# -- parameters


def test_frozen_parameters_stay() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    model.encoder[0].requires_grad_(False)
    before = problems.parameters_of(model)
    cost = eager_cost(delta=Dense())
    train(optimizer_with(cost, "mgda", model), range(3))
    model.encoder[2].bias.requires_grad_(False)
    frozen = model.encoder[2].bias.detach().clone()
    again = eager_cost(delta=Dense())
    train(optimizer_with(again, "mgda", model), range(3, 6))
    assert len(cost.attempts) == len(again.attempts) == 2
    after = problems.parameters_of(model)
    for name in ("encoder.0.weight", "encoder.0.bias"):
        assert torch.equal(before[name], after[name])
    assert torch.equal(after["encoder.2.bias"], frozen)
    assert not torch.equal(before["encoder.2.weight"], after["encoder.2.weight"])


@pytest.mark.parametrize("balancer", ["mgda", "ls"])
def test_only_the_parameters_given_as_shared_are_teleported(balancer: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    before: dict[str, Tensor] = {}

    def note(gramian: Any) -> bool:
        before.update(problems.parameters_of(model))
        return True

    cost = eager_cost(note, delta=Dense())
    train(optimizer_with(cost, balancer, model, shared=model.encoder[2], lr=0.0), range(3))
    after = problems.parameters_of(model)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"encoder.2.weight", "encoder.2.bias"}


class Tied(nn.Module):
    """An encoder whose weight is used once more as a decoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(3))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.second(torch.tanh(self.first(inputs)))
        return [head(features).squeeze(-1) for head in self.heads]


@pytest.mark.parametrize("delta", [LowRank(rank=2), Dense()], ids=lambda delta: type(delta).__name__)
def test_tied_weights_stay_tied(delta: Any) -> None:
    torch.manual_seed(0)
    model = Tied()
    cost = eager_cost(delta=delta, steps=2)
    mtl = optimizer_with(cost, "mgda", model)
    train(mtl, range(4))
    assert model.first.weight is model.second.weight
    assert all(report.accepted and report.distance > 0 for report in cost.attempts)
    # L_t of the second inner step was measured with both uses replaced: landing there gives the loss that was found.
    current = eager_cost(delta=delta, steps=1, probe="current")
    train(optimizer_with(current, "mgda", model, lr=0.0), range(1))
    again = {name: float(loss.detach()) for name, loss in mtl.objective(problems.batch(seed=0)).items()}
    assert current.attempts[-1].losses_after == pytest.approx(list(again.values()), rel=1e-5)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, groups=2), nn.ReLU()
        )
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images).mean((2, 3))
        return [head(features).squeeze(-1) for head in self.heads]


def images(step: int) -> problems.Batch:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 6, 6, generator=generator), torch.randn(4, 2, generator=generator)


@pytest.mark.parametrize("delta", [LowRank(rank=2), LoHa(rank=2), OFT(blocks=3), Dense()], ids=lambda d: type(d).__name__)
def test_channels_last(delta: Any) -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = Convolutions().to(memory_format=layout)
        strides = {name: parameter.stride() for name, parameter in model.named_parameters()}
        cost = eager_cost(delta=delta)
        mtl = optimizer_with(cost, "mgda", model)
        for step in range(4):
            inputs, targets = images(step)
            mtl.step((inputs.to(memory_format=layout), targets))
        assert {name: parameter.stride() for name, parameter in model.named_parameters()} == strides
        assert len(cost.attempts) == 3
        found.append(outcome(mtl))
    # Perturbations are drawn in the order of the memory, so that only one of the layouts is searched in the same way.
    assert found[0].keys() == found[1].keys()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found[1].values())


def test_recurrent_weights() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(12, 5)
            self.gru = nn.GRU(5, 6, batch_first=True)
            self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(2))

        def forward(self, tokens: Tensor) -> list[Tensor]:
            _, last = self.gru(self.table(tokens))
            return [head(last[0]).squeeze(-1) for head in self.heads]

    torch.manual_seed(0)
    model = Recurrent()
    before = {}

    def note(gramian: Any) -> bool:
        before.update(problems.parameters_of(model))
        return True

    cost = eager_cost(note, delta=LowRank(rank=2))
    mtl = optimizer_with(cost, "mgda", model, make=torch.optim.Adam, lr=0.0)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        mtl.step((torch.randint(0, 12, (8, 4), generator=generator), torch.randn(8, 2, generator=generator)))
    after = problems.parameters_of(model)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"table.weight", "gru.weight_ih_l0", "gru.weight_hh_l0"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("delta", [LowRank(rank=2), OFT(blocks=2), Dense()], ids=lambda delta: type(delta).__name__)
def test_parameters_of_other_precisions(delta: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cost = eager_cost(delta=delta, lr=0.1)
    mtl = optimizer_with(cost, "mgda", problems.Heads().to(dtype))
    for step in range(4):
        mtl.step(tuple(tensor.to(dtype) for tensor in problems.batch(seed=step)))
    assert len(cost.attempts) == 3
    assert all(report.accepted and report.distance > 0 for report in cost.attempts)
    assert {parameter.dtype for parameter in mtl.objective.model.parameters()} == {dtype}


# -- ways to take a step


def test_features() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    cost = eager_cost(delta=Dense())
    mtl = optimizer_with(cost, "mgda", model, features=model.encoder)
    train(mtl)
    assert [report.step for report in cost.attempts] == [1, 2, 3, 4, 5]
    assert all(report.distance > 0 for report in cost.attempts)


@pytest.mark.parametrize("balancer", ["mgda", "ls", "pcgrad", "nash-mtl", "uw", "famo"])
def test_micro_batches(balancer: str) -> None:
    cost = eager_cost(delta=Dense())
    mtl = optimizer_with(cost, balancer)
    train(mtl, micro_batches=3)
    assert len(cost.attempts) == 5
    assert all(report.accepted and report.distance > 0 for report in cost.attempts)


def test_a_balancer_that_forms_its_gramian_now_and_then() -> None:
    cost = eager_cost(check_every=1000, delta=Dense())
    train(optimizer_with(cost, eq.NashMTL(update_every=3)), range(10))
    formed = [report.step for report in cost.attempts]
    assert formed
    assert set(formed) <= {1, *range(0, 10, 3)}


# -- half precision


def autocast_losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        return problems.losses(model, batch)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("delta", [LowRank(rank=2), Dense()], ids=lambda delta: type(delta).__name__)
@pytest.mark.parametrize("balancer", ["mgda", "ls"])
def test_autocast_around_the_steps_is_as_around_the_losses(balancer: str, delta: Any, samples: int) -> None:
    found, costs = [], []
    for around in (False, True):
        cost = eager_cost(delta=delta, samples=samples)
        mtl = optimizer_with(cost, balancer, losses=problems.losses if around else autocast_losses)
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            train(mtl)
        found.append(outcome(mtl))
        costs.append(cost)
    assert all(report.distance > 0 for cost in costs for report in cost.attempts)
    assert problems.same(*found)


@pytest.mark.parametrize("balancer", ["mgda", "ls"])
def test_casts_made_at_a_point_that_was_refused_are_forgotten(balancer: str) -> None:
    found = []
    cost = eager_cost(delta=Dense(), lr=0.5, guard=True, tolerance=1e-12)
    for teleport in (cost, None):
        mtl = optimizer_with(teleport, balancer)
        with torch.autocast("cpu", torch.bfloat16):
            train(mtl, range(10))
        found.append(outcome(mtl))
    assert len(cost.attempts) >= 3
    assert all(report.distance > 0.1 and not report.accepted for report in cost.attempts)
    assert problems.same(*found)


@pytest.mark.parametrize("history", ["keep", "reuse"])
def test_a_gradient_scaler_changes_nothing_but_rounding(history: str) -> None:
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)):
        cost = eager_cost(delta=Dense(), history=history)
        mtl = optimizer_with(cost, make=torch.optim.Adam, lr=0.001, scaler=scaler)
        train(mtl)
        assert len(cost.attempts) == 5
        found.append(outcome(mtl))
    assert problems.same(*found, atol=2e-4)


@pytest.mark.parametrize("balancer", ["ls", "mgda"])
@pytest.mark.parametrize("where", ["everywhere", "in a head"])
@pytest.mark.parametrize("there_alone", [False, True])
def test_an_overflow_of_the_step_leaves_no_teleport(there_alone: bool, where: str, balancer: str) -> None:
    """Either at the new point alone, and the step is taken from the old one; or at both, and none is taken."""
    torch.manual_seed(0)
    model = problems.Heads()
    at: list[Tensor] = []

    def note(gramian: Any) -> bool:
        at.append(model.encoder[0].weight.detach().clone())
        return True

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        weight = model.encoder[0].weight  # type: ignore[union-attr, index]
        own = isinstance(weight, nn.Parameter) and float(batch[0][0, 0]) == float(problems.batch(seed=30)[0][0, 0])
        if own and not (there_alone and (not at or torch.equal(weight, at[-1]))):
            if where == "in a head":
                found["t0"] = found["t0"] + (model.heads[0].bias * 0).sqrt().sum()  # type: ignore[union-attr, index]
            else:
                found["t0"] = found["t0"] * 1e38
        return found

    cost = eager_cost(note, delta=LowRank(rank=2), history="reuse", start_step=3, stop_step=4)
    plain, runs = copy.deepcopy(model), []
    for teleport, own in ((cost, model), (None, plain)):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        runs.append(optimizer_with(teleport, balancer, own, losses, make=torch.optim.Adam, scaler=scaler))
        train(runs[-1], range(4))
        at.clear()  # a run without a teleport knows no other point
    assert runs[0].last is not None
    assert runs[0].last.skipped == (not there_alone)
    reasons = ["a loss or gradient is not finite there"] if there_alone else []
    assert [report.reason for report in cost.attempts] == reasons
    assert not any(report.accepted for report in cost.attempts)
    assert problems.same(*(outcome(mtl) for mtl in runs))
    for pair in zip(model.parameters(), plain.parameters(), strict=True):
        assert_same_state(*(mtl.optimizer.state[own] for mtl, own in zip(runs, pair, strict=True)))


def test_inner_optimizers() -> None:
    for inner in (torch.optim.SGD, torch.optim.Adam, lambda factors, lr: torch.optim.SGD(factors, lr, momentum=0.9)):
        cost = eager_cost(always, delta=Dense(), optimizer=inner)
        train(optimizer_with(cost), range(3))
        assert all(report.distance > 0 for report in cost.attempts)
