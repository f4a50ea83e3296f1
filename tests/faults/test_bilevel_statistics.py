"""Statistics of batch-norm layers are those of the lower level's batches, whatever the upper level's look like."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, MoCoBilevel, TaskWeighting, endless

Batch = tuple[Tensor, Tensor]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def batch(seed: int, shift: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, generator=generator) + shift, torch.randn(8, 2, generator=generator)


def problem(model: nn.Module, alpha: Tensor) -> BilevelProblem:
    def lower(alpha: Tensor, model: nn.Module, batch: Batch) -> Tensor:
        return (torch.softmax(alpha, 0) * (model(batch[0]) - batch[1]).square().mean(0)).sum()

    def upper(alpha: Tensor, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean(0)

    return BilevelProblem(lower, upper, (alpha, model))


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


SOLVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "moml": (MOML, {}),
    "moml, checkpointed": (MOML, {"memory": "checkpointed"}),
    "moml, keeping": (MOML, {"keeps_lower": True}),
    "moco": (MoCoBilevel, {}),
    "forum": (FORUM, {}),
    "bome": (BOME, {}),
    "bvfim": (BVFIM, {}),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_upper_batches_leave_no_trace(name: str) -> None:
    kind, options = SOLVERS[name]
    found = []
    for shift in (0.0, 100.0):
        model, alpha = net(), torch.zeros(2)
        both = [alpha] if issubclass(kind, MOML) else [alpha, *model.parameters()]
        # Without moving α or ω: then the lower level sees the same, whatever the upper level's batch is.
        solver = kind(problem(model, alpha), torch.optim.SGD(both, 0.0), lower_steps=3, lower_lr=0.01, **options)
        solver.step(endless([batch(1), batch(2), batch(3)]), batch(4, shift))
        found.append(statistics(model))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_statistics_are_those_of_the_lower_batches() -> None:
    model, alpha = net(), torch.zeros(2)
    MOML(problem(model, alpha), torch.optim.SGD([alpha], 0.1), lower_steps=3, lower_lr=0.01).step(
        endless([batch(1), batch(2), batch(3)]), batch(4, 100.0)
    )
    expected = net()
    for seed in (1, 2, 3):
        inputs, targets = batch(seed)
        loss = 0.5 * (expected(inputs) - targets).square().mean(0).sum()
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(expected.parameters(), gradients, strict=True):
                parameter.sub_(0.01 * gradient)
    assert int(model[1].num_batches_tracked) == 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(model.buffers(), expected.buffers(), strict=True))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("solver", ["moml", "moco-bilevel", "forum", "bome", "bvfim"])
def test_task_weights(solver: str, steps: int) -> None:
    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        errors = (model(batch[0]) - batch[1]).square().mean(0)
        return {"a": errors[0], "b": errors[1]}

    found = []
    for shift in (0.0, 100.0):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        mtl = TaskWeighting(eq.Objective(model, losses), optimizer, solver, lr=1e-9, lower_steps=steps)
        mtl.step(batch(1), batch(4, shift))
        found.append(statistics(model))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
def test_batched_products_that_cannot_be(memory: str) -> None:
    """A function that looks at values cannot be differentiated for all objectives at once; the step is that without."""

    class Looking(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient if float(gradient.detach().abs().max()) >= 0 else -gradient

    found = []
    for batched in (False, True):
        alpha, omega = torch.tensor([0.5, 1.0]), torch.ones(2)
        problem = BilevelProblem(
            lambda alpha, omega, batch: (Looking.apply(omega) - alpha).square().sum(),
            lambda alpha, omega, batch: {"one": (omega - 1).square().sum(), "two": (omega - 2).square().sum()},
            (alpha, omega),
        )
        solver = MOML(problem, torch.optim.SGD([alpha], 0.1), lower_steps=4, lower_lr=0.1, memory=memory, batched=batched)
        solver.step(endless([None]), None)
        found.append(alpha.detach().clone())
    assert torch.equal(*found)
