"""COST's released code against ours: what its functions gave on a small network, with noise and starts that a formula gives.

``tests/oracles/cost_released.json`` holds numbers only. They come from the functions of ``methods/teleportation.py`` and
``methods/weight_methods.py`` of the repository zzpustc/COST, run in float64 with PEFT 0.21 on the network, the batches, the
starts of the adapters and the noise that are defined here; only what loads its data sets was replaced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.distributed import Processes
from equipoise.teleport import LowRank, ReleasedFormulation, Schedule, Search
from equipoise.teleport.deltas import Adaptation
from equipoise.teleport.measure import JointLosses

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "cost_released.json").read_text())
TARGETS = ["body.0", "body.3"]
SCALES = (1.0, 4.0, 0.5)


def wave(shape: tuple[int, ...], number: float, scale: float = 1.0) -> Tensor:
    places = torch.arange(math.prod(shape), dtype=torch.float64) + 1.0
    return (scale * torch.sin(places * 0.7 * (1 + 0.13 * number) + 1.3 * number)).reshape(shape)


class Net(nn.Module):
    """Two layers with a batch norm between them, and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.double()
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(wave(tuple(parameter.shape), number, 0.6))
            buffers = dict(self.named_buffers())
            buffers["body.1.running_mean"].copy_(wave((7,), 20, 0.2))
            buffers["body.1.running_var"].copy_(1 + wave((7,), 21, 0.3))

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.body(inputs)
        return torch.cat([head(features) for head in self.heads], 1)


def batch(number: int) -> tuple[Tensor, Tensor]:
    return wave((7, 6), 30 + number), wave((7, 3), 40 + number)


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    errors = (model(batch[0]) - batch[1]).square().mean(0)
    return {f"t{k}": scale * error for k, (scale, error) in enumerate(zip(SCALES, errors, strict=True))}


class Waves(ReleasedFormulation):
    """The released formulation with noise that a formula gives."""

    calls = 0

    def noise(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        found = {}
        for name, parameter in parameters.items():
            Waves.calls += 1
            places = torch.arange(parameter.numel(), dtype=torch.float64) + 1.0
            rate = 0.9 + 0.37 * math.sin(3.0 * self.calls)
            drawn = torch.sin(places * rate + 2.1 * self.calls).reshape(parameter.shape)
            found[name] = drawn * (self.radius / drawn.norm())
        return found


class LowRankWaves(LowRank):
    """Adapters that start as a formula has it."""

    def adapt(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> Adaptation:
        made = super().adapt(parameters, generator)
        with torch.no_grad():
            for number, factor in enumerate(made.factors[1::2]):
                factor.copy_(wave(tuple(factor.shape), 50 + number, 0.4))
        return made


def formulation(calls: int = 0, **options: Any) -> ReleasedFormulation:
    Waves.calls = calls
    return Waves(**options)


class Given(Waves):
    """The weights R that the oracle was given."""

    def balance(self, norms: Any) -> Any:
        return np.array(ORACLE["search"]["R"])


class Noting(torch.optim.Adam):
    """Keeps the first gradients."""

    gradients: ClassVar[list[Tensor]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if not Noting.gradients:
            Noting.gradients = [factor.grad.clone() for factor in self.param_groups[0]["params"]]
        super().step()


def searched(search: Search, adaptation: Adaptation, model: Net, batches: list[Any]) -> Any:
    objective = eq.Objective(model, losses, tasks=["t0", "t1", "t2"])
    shared = {name: parameter for name, parameter in model.named_parameters() if name.startswith("body")}
    return search.run(
        objective,
        adaptation,
        shared,
        batches,
        JointLosses(objective.tasks, Processes(), torch.device("cpu")),
        triggering=[batch(0)],
        training_lr=1e-2,
        gramian=np.eye(3),
        tasks=["t0", "t1", "t2"],
        sizes=np.ones_like,
        judged=np.ones(3),
        generator=torch.Generator(),
    )


def adapted(model: Net) -> Adaptation:
    return LowRankWaves(targets=TARGETS).adapt(dict(model.named_parameters()), torch.Generator())


def test_the_gradient_of_l_g() -> None:
    model = Net()
    adaptation = adapted(model)
    with torch.no_grad():
        for number, factor in enumerate(adaptation.factors[::2]):
            factor.copy_(wave(tuple(factor.shape), 60 + number, 0.3))
    Waves.calls = 0
    Noting.gradients = []
    search = Search(Given(invariance=0.0), steps=1, lr=1e-2, optimizer=Noting)
    found = searched(search, adaptation, model, [batch(1)])
    assert found.reward[0] == pytest.approx(ORACLE["gradient"]["L_g"], rel=1e-9)
    first_b, first_a, second_b, second_a = Noting.gradients
    expected = [torch.tensor(values, dtype=torch.float64) for values in ORACLE["gradient"]["values"]]
    for ours, theirs in zip((first_a, first_b, second_a, second_b), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()))


def test_a_whole_search() -> None:
    """Two passes over three batches, Adam: the terms of every inner step, and where it ends."""
    model = Net().train()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    Waves.calls = 0
    search = Search(Given(), passes=2, lr="training")
    found = searched(search, adapted(model), model, [batch(1), batch(2), batch(3)])
    oracle = ORACLE["search"]
    assert found.invariance == pytest.approx(oracle["L_t"], rel=1e-6)
    assert found.reward == pytest.approx(oracle["L_g"], rel=1e-6)
    objective = [10 * kept - 0.5 * sharp for kept, sharp in zip(found.invariance, found.reward, strict=True)]
    assert objective == pytest.approx(oracle["objective"], rel=1e-6)
    assert found.deltas.keys() == oracle["delta"].keys()
    for name, delta in found.deltas.items():
        torch.testing.assert_close(delta, torch.tensor(oracle["delta"][name], dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert model.training
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("case", ["reset", "reuse"])
def test_whole_steps(case: str) -> None:
    """FairGrad with COST: trigger, R, the search, and, where σ ≤ 0 starts Adam afresh, the steps after it."""
    oracle = ORACLE["steps"][case]
    Waves.calls = oracle["first_noise"]
    model = Net().train()
    model.heads.requires_grad_(False)  # there, FairGrad's weights are those of the shared parameters alone
    loader = [batch(1), batch(2), batch(3)]
    objective = eq.Objective(model, losses, tasks=["t0", "t1", "t2"], batches=loader)
    cost = eq.COST.released(
        delta=LowRankWaves(targets=TARGETS),
        search=Search(Waves(), passes=2, lr="training"),
        schedule=Schedule(start_step=3, budget=None, per_epoch=1),
    )
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), lr=1e-2), "fairgrad", teleport=cost)
    start: dict[str, Tensor] = {}
    for step in range(8):
        if step == oracle["step"]:
            start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        mtl.step(batch(6 + step))
        if case == "reset" and str(step) in oracle["shared_after_steps"]:
            for name, values in oracle["shared_after_steps"][str(step)].items():
                found = dict(model.named_parameters())[name].detach().flatten()
                torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float64), rtol=1e-4, atol=1e-6)
    (attempt,) = cost.attempts
    assert (attempt.step, attempt.accepted, attempt.reason) == (oracle["step"], True, "not guarded")
    assert start
    distance = math.sqrt(sum(value**2 for values in oracle["delta"].values() for row in values for value in row))
    assert attempt.distance == pytest.approx(distance, rel=1e-4)
