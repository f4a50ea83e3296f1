"""The drop-in on a model wrapped in DistributedDataParallel takes the step that one process takes on the joint batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equipoise as eq
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import State, share, state

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
    "views": {"gradient_as_bucket_view": True},
}


def wrapped_loop(rank: int, count: int, method: str, way: str = "plain", extra: str = "", shared: bool = False) -> State:
    """Four steps of two accumulated batches."""
    torch.manual_seed(5)
    model = problems.Heads()
    wrapped = DistributedDataParallel(model, **WAYS[way]) if count > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    balancer = eq.balancer(method)
    for step in range(4):
        optimizer.zero_grad()
        for part in range(2):
            batch = share(problems.batch(16, seed=10 * step + part), rank, count)
            losses: dict[str, Any] = problems.losses(wrapped, batch)
            if extra == "callables":
                losses = {name: (lambda name=name, batch=batch: problems.losses(wrapped, batch)[name]) for name in losses}
            if extra == "before":
                sum(losses.values()).backward(retain_graph=True)
            if extra == "after":
                penalty = sum(p.square().sum() for p in model.parameters())
                kept = losses["t0"] * 0.5 + losses["t1"] * 0.5 + losses["t2"] * 0.5 + 0.001 * penalty
                eq.backward({name: loss * 1.0 for name, loss in losses.items()}, balancer)
                kept.backward()
                continue
            eq.backward(losses, balancer, shared=model.encoder if shared else None)
        optimizer.step()
    return state(model)


def agree(pool: Pool, *arguments: Any) -> None:
    first, second = pool.run(wrapped_loop, *arguments)
    assert problems.same(first, second)
    alone = wrapped_loop(0, 1, *arguments)
    for name in alone:
        assert torch.allclose(first[name], alone[name], atol=1e-5), (name, first[name] - alone[name])


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("method", ["famo", "mgda", "pcgrad"])
def test_the_drop_in(pool: Pool, method: str, way: str) -> None:
    agree(pool, method, way)


@pytest.mark.parametrize("method", ["famo", "mgda"])
def test_an_ordinary_backward_pass_before(pool: Pool, method: str) -> None:
    agree(pool, method, "plain", "before")


class WithLosses(nn.Module):
    """A model that returns its losses beside other things, as those of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = problems.Heads()

    def forward(self, batch: problems.Batch) -> dict[str, Any]:
        losses = problems.losses(self.inner, batch)
        return {"step": 3, "t0": losses["t0"], "size": torch.ones(2), "t1": losses["t1"], "t2": losses["t2"]}


def returned_losses(rank: int, count: int, way: str) -> State:
    torch.manual_seed(5)
    model = WithLosses()
    wrapped = DistributedDataParallel(model, **WAYS[way]) if count > 1 else model
    found = wrapped(share(problems.batch(16), rank, count))
    eq.backward({name: found[name] for name in ("t0", "t1", "t2")}, "mgda")
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("way", ["plain", "unused"])
def test_losses_that_the_model_returns(pool: Pool, way: str) -> None:
    first, second = pool.run(returned_losses, way)
    assert problems.same(first, second)
    alone = returned_losses(0, 1, way)
    assert first.keys() == alone.keys()
    for name in alone:
        assert torch.allclose(first[name], alone[name], rtol=1e-4, atol=1e-5), name


def captured(rank: int, count: int) -> State:
    """The loss function uses the wrapped model, whatever it is given."""
    torch.manual_seed(5)
    model = problems.Heads()
    wrapped = DistributedDataParallel(model) if count > 1 else model
    objective = eq.Objective(model, lambda _, batch: problems.losses(wrapped, batch))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.003), "mgda")
    for step in range(3):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    return state(model)


def test_a_loss_function_that_holds_the_wrapped_model(pool: Pool) -> None:
    first, second = pool.run(captured)
    alone = captured(0, 1)
    assert problems.same(first, second)
    for name in alone:
        assert torch.allclose(first[name], alone[name], atol=1e-5), name


def later(rank: int, count: int) -> list[str]:
    """What is said of a model that is wrapped for others, in ways that cannot be followed, or after its first step."""
    said = []
    torch.manual_seed(5)
    model = problems.Heads()
    balancer = eq.balancer("mgda")
    eq.backward(problems.losses(model, problems.batch(8)), balancer)
    wrapped = DistributedDataParallel(model)
    with pytest.raises(eq.InputError) as refused:
        eq.backward(problems.losses(wrapped, problems.batch(8)), balancer)
    said.append(str(refused.value))
    alone = [torch.distributed.new_group([place]) for place in range(count)][rank]
    model = problems.Heads()
    other = DistributedDataParallel(model, process_group=alone)
    with pytest.raises(eq.InputError) as refused:
        eq.backward(problems.losses(other, problems.batch(8)), eq.balancer("mgda"))
    said.append(str(refused.value))
    assert all(parameter.grad is None for parameter in model.parameters())
    return said


def test_what_cannot_be_followed_is_refused(pool: Pool) -> None:
    for after, group in pool.run(later):
        assert "after its first balanced step" in after
        assert "no_sync" in after
        assert "process_group" in group


def with_inputs(rank: int, count: int, method: str, callables: bool) -> State:
    """Inputs that require grad, of another size in each process; gradients of two batches are accumulated."""
    torch.manual_seed(5)
    model = problems.Heads()
    balancer = eq.balancer(method)
    for part in range(2):
        halves = []
        for place in range(2):
            inputs, targets = problems.batch(8, seed=10 * part + place)
            repeated = 1 + place  # the same mean, from more rows
            halves.append((inputs.repeat(repeated, 1).requires_grad_(), targets.repeat(repeated, 1)))
        mine = halves if count == 1 else [halves[rank]]

        def value(name: str, mine: list[problems.Batch] = mine) -> Tensor:
            return torch.stack([problems.losses(model, half)[name] for half in mine]).mean()

        names = ("t0", "t1", "t2")
        eq.backward({name: (lambda name=name: value(name)) if callables else value(name) for name in names}, balancer)
        for half in mine:
            assert half[0].grad is not None
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("callables", [False, True])
@pytest.mark.parametrize("method", ["ls", "famo", "mgda"])
def test_inputs_that_require_grad(pool: Pool, method: str, callables: bool) -> None:
    first, second = pool.run(with_inputs, method, callables)
    assert problems.same(first, second)
    alone = with_inputs(0, 1, method, callables)
    for name in alone:
        assert torch.allclose(first[name], alone[name], rtol=1e-4, atol=1e-5), name


class Aside(nn.Module):
    """A branch of its own beside the balanced tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks, self.aside = problems.Heads(), nn.Linear(6, 1)

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        return self.tasks(inputs), self.aside(inputs)


def afterwards(rank: int, count: int, method: str) -> str:
    """Something else of the same forward pass is differentiated as always, after the balanced step."""
    torch.manual_seed(5)
    model = Aside()
    wrapped = DistributedDataParallel(model)
    balancer = eq.balancer(method)
    for step in range(2):
        try:
            outputs, aside = wrapped(share(problems.batch(16, seed=step), rank, count)[0])
        except RuntimeError as error:
            return str(error)
        eq.backward({f"t{k}": out.square().mean() for k, out in enumerate(outputs)}, balancer)
        aside.square().mean().backward()
    return ""


@pytest.mark.parametrize("method", ["famo", "mgda"])
def test_an_ordinary_backward_pass_after(pool: Pool, method: str) -> None:
    """The reducer waits for the parameters that it has not seen, and says so in the next forward pass."""
    for said in pool.run(afterwards, method):
        assert "Expected to have finished reduction" in said
    pool.close()
