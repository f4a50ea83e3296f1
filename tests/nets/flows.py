"""Flows with a closed form, and a small model with a flow in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equipoise.nets import NORMAL, FirstOrder, HeavyBall, LearnedPositions, Positions, Solver, TaskFlow

SIZE = 3
TIGHT = Solver("dopri5", rtol=1e-9, atol=1e-9)
TASKS = ("a", "b", "c")


def linear(seed: int) -> nn.Linear:
    """Z ↦ A z with a small random A, in float64."""
    layer = nn.Linear(SIZE, SIZE, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.7)
    return layer


def positions(*values: float) -> LearnedPositions:
    """Learned ones in float64, tasks t0, t1 …"""
    places = LearnedPositions([f"t{number}" for number in range(len(values))], values).double()
    for parameter, value in zip(places.learned, values, strict=True):
        parameter.data.fill_(value)  # not the nearest number of float32
    return places


def heavy(places: Positions, solver: Solver, *, xi: float = 0.4, damping: float = 0.3) -> TaskFlow:
    return TaskFlow(HeavyBall(linear(1), linear(2), xi=xi, damping=damping).double(), places, solver)


def first(places: Positions, solver: Solver) -> TaskFlow:
    return TaskFlow(FirstOrder(linear(2)).double(), places, solver)


def system(flow: TaskFlow) -> Tensor:
    """M of (z, q)′ = M (z, q), or of z′ = M z."""
    dynamics = flow.dynamics
    weight = dynamics.function.weight.detach()
    if isinstance(dynamics, FirstOrder):
        return weight
    one = torch.eye(SIZE, dtype=torch.float64)
    damping = float(dynamics.damping.detach())
    upper = torch.cat([torch.zeros_like(one), -one], dim=1)
    return torch.cat([upper, torch.cat([weight + dynamics.xi * one, -damping * one], dim=1)])


def state_at(flow: TaskFlow, z: Tensor, time: float) -> Tensor:
    """The closed form: exp(M t) applied to the state at 0, ``[N, 3]`` or ``[N, 6]``."""
    start = torch.cat(flow.dynamics.start(z), dim=1).detach()
    return start @ torch.linalg.matrix_exp(system(flow) * time).T


def model(**options: Any) -> NORMAL:
    """Three tasks on a flow of six features, one of them on its negative side."""
    torch.manual_seed(3)
    options.setdefault("positions", LearnedPositions(TASKS, [0.7, 1.3, -0.4]))
    flow = TaskFlow.for_vectors(TASKS, 6, **options)
    return NORMAL(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), flow, {task: nn.Linear(6, 1) for task in TASKS})


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=generator), torch.randn(16, 3, generator=generator)


def losses(network: nn.Module, given: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    inputs, targets = given
    out = network(inputs)
    return {task: (out[task][:, 0] - targets[:, number]).square().mean() for number, task in enumerate(TASKS)}
