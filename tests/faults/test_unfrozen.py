"""Layers that are frozen and unfrozen in the midst of training, with methods that keep rows as long as the gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.per_task import RowsBalancer
from tests.problems import Heads, batch, losses

MEMORY = {"db-mtl": "averages", "moco": "tracked", "excess-mtl": "squares"}


def optimizer(balancer: str | RowsBalancer, model: nn.Module | None = None) -> eq.MultiTaskOptimizer:
    if model is None:
        torch.manual_seed(0)
        model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer)


def gradients(model: Heads, parts: list[Tensor], seed: int) -> Tensor:
    """By plain autograd ``[K, P]``."""
    rows = []
    for loss in losses(model, batch(seed=seed)).values():
        found = torch.autograd.grad(loss, parts, retain_graph=True)
        rows.append(torch.cat([piece.reshape(-1) for piece in found]))
    return torch.stack(rows)


def kept(balancer: RowsBalancer, method: str) -> dict[str, Tensor]:
    """The memory ``[K, size]`` of each parameter."""
    memory = getattr(balancer, MEMORY[method])
    names, sizes = zip(*balancer.layout, strict=True)
    return dict(zip(names, memory.split(sizes, dim=1), strict=True))


@pytest.mark.parametrize("method", MEMORY)
def test_unfreezing_keeps_what_is_known(method: str) -> None:
    mtl = optimizer(method)
    first, last = mtl.objective.model.encoder[0], mtl.objective.model.encoder[2]
    first.requires_grad_(False)
    mtl.step(batch(seed=0))
    before = {name: rows.clone() for name, rows in kept(mtl.balancer, method).items()}
    assert before.keys() == {"encoder.2.weight", "encoder.2.bias"}
    first.requires_grad_(True)
    parts = [*first.parameters(), *last.parameters()]
    fresh = gradients(mtl.objective.model, parts, seed=1)
    values = torch.stack(list(losses(mtl.objective.model, batch(seed=1)).values())).detach()
    mtl.step(batch(seed=1))
    after = kept(mtl.balancer, method)
    assert after.keys() == {"encoder.0.weight", "encoder.0.bias", "encoder.2.weight", "encoder.2.bias"}
    start = 0
    for name, rows in after.items():
        own = fresh[:, start : start + rows.shape[1]]
        start += rows.shape[1]
        old = before.get(name, torch.zeros_like(rows))
        if method == "db-mtl":
            expected = 0.9 * old + 0.1 * own / (values[:, None] + 1e-8)
        elif method == "moco":
            beta = 0.5 / 2**0.5
            expected = (1 - beta) * old + beta * own
        else:
            expected = old + own.square()
        assert torch.allclose(rows, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", MEMORY)
def test_the_step_after_is_that_of_a_memory_with_zeros(method: str) -> None:
    """The direction is what the balancer gives by itself, shown a memory in which the new columns are 0."""
    mtl = optimizer(method)
    model = mtl.objective.model
    model.encoder[2].requires_grad_(False)
    mtl.step(batch(seed=0))
    model.encoder[2].requires_grad_(True)
    alone = copy.deepcopy(mtl.balancer)
    memory = getattr(alone, MEMORY[method])
    parts = [*model.encoder.parameters()]
    fresh = gradients(model, parts, seed=1)
    setattr(alone, MEMORY[method], torch.cat([memory, memory.new_zeros(3, fresh.shape[1] - memory.shape[1])], dim=1))
    alone.layout = None
    values = torch.stack(list(losses(model, batch(seed=1)).values())).detach()
    direction = alone.decide(eq.balance.Observation.of_all(values, fresh))
    mtl.step(batch(seed=1))
    found = torch.cat([part.grad.reshape(-1) for part in parts])
    assert torch.allclose(found, direction, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", MEMORY)
def test_as_many_others_are_not_the_same(method: str) -> None:
    """One layer frozen, another of the same size unfrozen: the memory of one must not serve the other."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
            self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(3))

        def forward(self, inputs: Tensor) -> list[Tensor]:
            features = self.encoder(inputs)
            return [head(features).squeeze(-1) for head in self.heads]

    torch.manual_seed(0)
    model = Two()
    mtl = optimizer(method, model)
    model.encoder[0].requires_grad_(False)
    mtl.step(batch(seed=0))
    old = {name: rows.clone() for name, rows in kept(mtl.balancer, method).items()}
    model.encoder[0].requires_grad_(True)
    model.encoder[2].requires_grad_(False)
    mtl.step(batch(seed=1))
    new = kept(mtl.balancer, method)
    assert new.keys() == {f"encoder.{layer}.{kind}" for layer in (0, 4) for kind in ("weight", "bias")}
    assert not torch.allclose(new["encoder.0.weight"], old["encoder.2.weight"], rtol=1e-2)
    other = optimizer(mtl.balancer, nn.Linear(6, 3))
    other.objective.losses = lambda model, batch: list((model(batch[0]) - batch[1]).square().mean(0))
    with pytest.raises(eq.errors.InputError, match="make a new one"):
        other.step(batch())


@pytest.mark.parametrize("method", MEMORY)
def test_a_task_that_comes_later_shares_more(method: str) -> None:
    """What is shared grows as tasks come, and with it the rows."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.branch = nn.Linear(6, 4), nn.Linear(4, 4)
            self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def function(model: Branches, batch: tuple[Tensor, list[int]]) -> dict[str, Tensor]:
        inputs, present = batch
        features = model.trunk(inputs)
        deep = model.branch(features)
        return {f"t{k}": model.heads[k](features if k == 0 else deep).square().mean() for k in present}

    torch.manual_seed(0)
    model = Branches()
    objective = eq.Objective(model, function, tasks=["t0", "t1", "t2"])
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.01), method)
    inputs = batch()[0]
    mtl.step((inputs, [0, 1]))
    before = kept(mtl.balancer, method)["trunk.weight"].clone()
    mtl.step((inputs, [1, 2]))
    assert {name.partition(".")[0] for name, _ in mtl.balancer.layout} == {"trunk", "branch"}
    assert torch.equal(kept(mtl.balancer, method)["trunk.weight"][0], before[0])  # of the task that is not there


@pytest.mark.parametrize("method", MEMORY)
def test_resumed_before_a_layer_is_unfrozen(method: str) -> None:
    straight = optimizer(method)
    straight.objective.model.encoder[0].requires_grad_(False)
    straight.step(batch(seed=0))
    resumed = optimizer(eq.balancer(method))
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for mtl in (straight, resumed):
        mtl.objective.model.encoder[0].requires_grad_(True)
        mtl.step(batch(seed=1))
    pairs = zip(straight.objective.model.parameters(), resumed.objective.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", MEMORY)
def test_a_failed_step_after_unfreezing_changes_nothing(method: str) -> None:
    mtl = optimizer(method)
    mtl.objective.model.encoder[0].requires_grad_(False)
    mtl.step(batch(seed=0))
    mtl.objective.model.encoder[0].requires_grad_(True)
    before = mtl.balancer.state_dict()
    inputs, targets = batch(seed=1)
    with pytest.raises(eq.NonFiniteError):
        mtl.step((inputs * torch.inf, targets))
    after = mtl.balancer.state_dict()
    assert before["layout"] == after["layout"]
    assert torch.equal(before[MEMORY[method]], after[MEMORY[method]])


@pytest.mark.parametrize("method", MEMORY)
def test_the_drop_in(method: str) -> None:
    """It has no names; what it remembers of each parameter is what a MultiTaskOptimizer that does not move would."""
    torch.manual_seed(0)
    model, balancer = Heads(), eq.balancer(method)
    still = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.0), method)
    for frozen in (True, False):
        model.encoder[0].requires_grad_(not frozen)
        still.step(batch(seed=int(frozen)))
        eq.backward(losses(model, batch(seed=int(frozen))), balancer)
    named, counted = kept(still.balancer, method), kept(balancer, method)
    assert len(counted) == 4
    for name, shape in (("encoder.0.weight", "[8, 6]"), ("encoder.2.weight", "[8, 8]")):
        (found,) = (rows for label, rows in counted.items() if label.endswith(shape))
        assert torch.allclose(found, named[name], rtol=1e-5, atol=1e-8)
