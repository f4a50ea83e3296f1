"""A landing moves values and nothing else; a refused one leaves no trace at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.teleport import OFT, Dense, LoHa, LowRank, ReleasedFormulation
from tests import problems
from tests.teleport.helpers import eager_cost, optimizer_with, train

NEVER = {"guard": True, "tolerance": 1e-12}


def noisy(seed: int = 0) -> problems.Heads:
    """With dropout and batch norm, so that every evaluation that leaks is seen."""
    torch.manual_seed(seed)
    return problems.Heads(dropout=0.2, norm=True)


def everything(mtl: Any) -> dict[str, Tensor]:
    """Parameters, buffers and the optimizer's state."""
    found = {name: tensor.clone() for name, tensor in mtl.objective.model.state_dict().items()}
    for number, state in mtl.optimizer.state_dict()["state"].items():
        found |= {f"{number}.{name}": tensor.clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}
    return found


@pytest.mark.parametrize("delta", [LowRank(rank=2), LoHa(rank=2), OFT(blocks=2), Dense()], ids=lambda d: type(d).__name__)
def test_parameters_stay_the_same_objects(delta: Any) -> None:
    model = noisy()
    named = dict(model.named_parameters())
    keys, memory = list(model.state_dict()), {name: parameter.data_ptr() for name, parameter in named.items()}
    modules = {name: type(module) for name, module in model.named_modules()}
    cost = eager_cost(delta=delta)
    mtl = optimizer_with(cost, "mgda", model, make=torch.optim.Adam)
    train(mtl)
    assert [report.accepted for report in cost.attempts] == [True] * 5
    assert all(report.distance > 0 for report in cost.attempts)
    assert all(parameter is named[name] for name, parameter in model.named_parameters())
    assert list(model.state_dict()) == keys
    assert {name: parameter.data_ptr() for name, parameter in named.items()} == memory
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(type(parameter) is nn.Parameter and parameter.is_leaf for parameter in model.parameters())


@pytest.mark.parametrize("formulation", ["paper", "released"])
@pytest.mark.parametrize("guard", [False, True])
def test_an_attempt_moves_shared_parameters_only(formulation: str, guard: bool) -> None:
    """The steps themselves move nothing."""
    before: dict[str, Any] = {}

    def note(gramian: Any) -> bool:
        before.update(problems.parameters_of(mtl.objective.model), mode=mtl.objective.model.training)
        return True

    cost = eager_cost(note, guard=guard, tolerance=10.0, formulation=formulation, delta=LowRank(rank=2))
    mtl = optimizer_with(cost, "mgda", noisy(), make=torch.optim.Adam, lr=0.0)
    for step in range(5):
        mtl.step(problems.batch(seed=step))
        if mtl.last is None or mtl.last.teleport is None:
            continue
        after = problems.parameters_of(mtl.objective.model)
        moved = {name for name in after if not torch.equal(after[name], before[name])}
        expected = {"encoder.0.weight", "encoder.4.weight"} if cost.attempts[-1].accepted else set()
        assert moved == expected
        assert mtl.objective.model.training == before["mode"]
    assert len(cost.attempts) >= 2


@pytest.mark.parametrize("history", ["keep", "reuse", "reset"])
@pytest.mark.parametrize("balancer", ["mgda", "ls", "famo", "pcgrad", "uw"])
def test_training_with_a_teleport_that_never_lands_is_as_without(balancer: str, history: str) -> None:
    cost = eager_cost(delta=Dense(), history=history, lr=0.05, **NEVER)
    runs = []
    for teleport in (cost, None):
        mtl = optimizer_with(teleport, balancer, noisy(), make=torch.optim.Adam)
        torch.manual_seed(7)
        for step in range(12):
            mtl.step(problems.batch(seed=step))
            if step % 5 == 4:
                mtl.end_epoch()
        runs.append(everything(mtl) | {"random": torch.get_rng_state()})
    assert len(cost.attempts) >= 3
    assert not any(report.accepted for report in cost.attempts)
    assert all(report.distance > 0 for report in cost.attempts)
    assert [name for name in runs[0] if not torch.equal(runs[0][name], runs[1][name])] == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_refused_landing_gives_back_every_bit(dtype: torch.dtype) -> None:
    """Also where θ + Δθ - Δθ is not θ."""
    before: dict[str, Tensor] = {}

    def note(gramian: Any) -> bool:
        before.update(problems.parameters_of(mtl.objective.model))
        return True

    torch.manual_seed(0)
    cost = eager_cost(note, delta=Dense(), lr=0.5, **NEVER)
    mtl = optimizer_with(cost, "mgda", problems.Heads().to(dtype), make=torch.optim.SGD, lr=0.0)
    for step in range(4):
        mtl.step(tuple(tensor.to(dtype) for tensor in problems.batch(seed=step)))
    assert cost.attempts[-1].distance > 1
    assert not cost.attempts[-1].accepted
    assert problems.same(problems.parameters_of(mtl.objective.model), before)


def test_the_guard_lets_pass_what_it_should() -> None:
    """Judged by the numbers in the reports themselves."""
    cost = eager_cost(guard=True, tolerance=0.02, delta=Dense(), lr=0.03, steps=5, scaling="none")
    train(optimizer_with(cost), range(40))
    kinds = set()
    for report in cost.attempts:
        change = sum(map(abs, report.changes)) / len(report.changes)
        fine = change <= 0.02 and report.measure_after <= report.measure_before
        assert report.accepted == fine, report
        assert report.reason
        kinds.add((report.accepted, change <= 0.02))
    assert len(kinds) == 3, "landings and both kinds of refusal should occur"


def test_without_a_guard_everything_finite_lands() -> None:
    cost = eager_cost(guard=False, delta=Dense(), lr=0.5, tolerance=1e-12)
    train(optimizer_with(cost), range(6))
    assert [(report.accepted, report.reason) for report in cost.attempts] == [(True, "not guarded")] * 5
    assert max(abs(change) for report in cost.attempts for change in report.changes) > 0.1


def test_the_released_mode_is_left_again() -> None:
    model = noisy()
    seen = set()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        seen.add(model.training)
        return problems.losses(model, batch)

    train(optimizer_with(eager_cost(formulation=ReleasedFormulation(), delta=Dense()), "mgda", model, losses), range(3))
    assert seen == {True, False}
    assert all(module.training for module in model.modules())
