"""Balancers of one's own that decide on a direction of the features, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.mixins import OnFeatures
from tests.problems import Heads, batch, losses, parameters_of, same

Decision = Callable[[eq.balance.Observation], Any]


class Own(OnFeatures, eq.balance.GradientBalancer):
    """Decides as it is told, at the output of a module."""

    def __init__(self, module: nn.Module, decision: Decision) -> None:
        self.module = module
        self.decision = decision
        self.learned: list[eq.balance.Observation] = []

    @property
    def features_module(self) -> nn.Module:
        return self.module

    def decide(self, observation: eq.balance.Observation) -> Tensor:
        return self.decision(observation)

    def update(self, observation: eq.balance.Observation) -> None:
        self.learned.append(observation)


def made(decision: Decision, model: Any = None, function: Any = losses) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Heads() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return eq.MultiTaskOptimizer(eq.Objective(model, function), optimizer, Own(model.encoder, decision))


def test_the_direction_takes_the_place_of_the_features_gradient() -> None:
    seen: list[eq.balance.Observation] = []
    chosen = torch.randn(16 * 8, generator=torch.Generator().manual_seed(1))

    def decision(observation: eq.balance.Observation) -> Tensor:
        seen.append(observation)
        return chosen

    mtl, data = made(decision), batch()
    model: Any = mtl.objective.model
    features = model.encoder(data[0])
    outputs = [head(features).squeeze(-1) for head in model.heads]
    scales = (1.0, 10.0, 0.1)
    values = [s * (o - data[1][:, k]).square().mean() for k, (s, o) in enumerate(zip(scales, outputs, strict=True))]
    rows = torch.stack([torch.autograd.grad(value, features, retain_graph=True)[0].flatten() for value in values])
    own = [
        torch.autograd.grad(value, head.weight, retain_graph=True)[0] for value, head in zip(values, model.heads, strict=True)
    ]
    expected = torch.autograd.grad(features, list(model.encoder.parameters()), chosen.view(16, 8))
    mtl.step(data)
    (observation,) = seen
    assert torch.allclose(observation.gradients, rows, atol=1e-6)
    assert torch.equal(observation.features, features)
    assert not observation.features.requires_grad
    assert observation.batch is data
    for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    for head, gradient in zip(model.heads, own, strict=True):
        assert torch.allclose(head.weight.grad, gradient, atol=1e-6)
    assert mtl.last.weights is None
    assert torch.allclose(mtl.last.gramian, (rows @ rows.T).double(), rtol=1e-4)
    assert len(mtl.balancer.learned) == 1


def test_only_tasks_that_are_there_are_seen() -> None:
    shapes: list[Any] = []

    def decision(observation: eq.balance.Observation) -> Tensor:
        shapes.append((observation.present, tuple(observation.gradients.shape)))
        return observation.gradients.sum(0)

    mtl = made(decision, function=lambda model, data: {k: v for k, v in losses(model, data[:2]).items() if k in data[2]})
    mtl.step((*batch(), ("t0", "t1", "t2")))
    mtl.step((*batch(), ("t0", "t2")))
    assert shapes == [((0, 1, 2), (3, 128)), ((0, 2), (2, 128))]


@pytest.mark.parametrize(
    ("decision", "error", "said"),
    [
        (
            lambda o: o.gradients,
            eq.InputError,
            r"Own must answer with a direction of 128 entries; it gave the shape \[3, 128\]",
        ),
        (lambda o: "x", eq.InputError, "Own must answer with a tensor of numbers; it gave str"),
        (lambda o: o.gradients[0] * float("nan"), eq.NonFiniteError, 'the direction of task "t0", "t1", "t2" is not finite'),
    ],
)
def test_answers_that_cannot_be_used(decision: Decision, error: type[Exception], said: str) -> None:
    mtl = made(decision)
    before = parameters_of(mtl.objective.model)
    with pytest.raises(error, match=said):
        mtl.step(batch())
    assert same(parameters_of(mtl.objective.model), before)
    assert mtl.steps == 0
    assert mtl.balancer.learned == []
    assert all(parameter.grad is None for parameter in mtl.objective.model.parameters())


def test_features_in_several_tensors_are_refused() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.LSTM(6, 4, batch_first=True)
            self.head = nn.Linear(4, 1)

    def function(model: Any, data: Tensor) -> dict[str, Tensor]:
        outputs, (hidden, _) = model.encoder(data)
        return {"a": model.head(outputs).square().mean(), "b": hidden.mean()}

    with pytest.raises(eq.InputError, match="needs features in one tensor; the losses use 2 of the features module"):
        made(lambda o: o.gradients[0], Pair(), function).step(torch.randn(2, 3, 6))
