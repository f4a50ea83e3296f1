"""Losses that themselves differentiate (forces, gradient penalties) work wherever the library evaluates losses again."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.bilevel import FORUM, BilevelProblem, TaskWeighting
from equipoise.study.training import _evaluated
from equipoise.teleport import COST, PaperFormulation, Probes, Schedule, Search
from equipoise.teleport.formulations import Formulation, ParetoFormulation, ReleasedFormulation
from tests.problems import METHODS, balancer_of, parameters_of, same

Batch = tuple[Tensor, Tensor, Tensor]


class Atoms(nn.Module):
    """An energy, whose gradient by the positions is a force, and a charge."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.heads = nn.ModuleDict({"energy": nn.Linear(6, 1), "charge": nn.Linear(6, 1)})

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(positions)
        return self.heads["energy"](features)[:, 0], self.heads["charge"](features)[:, 0]


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    positions, energies, forces = batch
    positions = positions.detach().requires_grad_()
    energy, charge = model(positions)
    (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
    return {
        "energy": (energy - energies).square().mean(),
        "force": 3.0 * (slope + forces).square().mean(),
        "charge": (charge - 1).square().mean() + 0.1,
    }


def lazy(model: nn.Module, batch: Batch) -> dict[str, object]:
    return {name: lambda name=name: losses(model, batch)[name] for name in ("energy", "force", "charge")}


def batch(seed: int = 0, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, *shape, generator=generator) for shape in ((3,), (), (3,)))


def model() -> Atoms:
    torch.manual_seed(0)
    return Atoms()


def optimizer(balancer: object, function: object = losses, **options: object) -> eq.MultiTaskOptimizer:
    made = model()
    return eq.MultiTaskOptimizer(eq.Objective(made, function), torch.optim.SGD(made.parameters(), 0.01), balancer, **options)


def joined(batches: Iterable[Batch]) -> Batch:
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_give_the_step_of_the_whole_batch(method: str) -> None:
    """Losses are means over samples, so two halves are the whole; si, gls, stch and ldc-mtl look at both before they weigh."""
    halves = [batch(1), batch(2)]
    whole, parts = optimizer(balancer_of(method)), optimizer(balancer_of(method))
    for _ in range(2):  # famo looks at the batch again after the first step and is another one in the second
        values = whole.step(joined(halves))
        again = parts.step(*halves)
        assert all(not value.requires_grad for value in (*values.values(), *again.values()))
    tolerance = {"rtol": 2e-3, "atol": 2e-4} if method == "pcgrad" else {"rtol": 1e-4, "atol": 1e-5}
    assert same(parameters_of(whole.objective.model), parameters_of(parts.objective.model), **tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_callables_give_the_step_of_losses(method: str) -> None:
    eager, callables = optimizer(balancer_of(method)), optimizer(balancer_of(method), lazy)
    for _ in range(2):
        eager.step(batch())
        callables.step(batch())
    assert same(parameters_of(eager.objective.model), parameters_of(callables.objective.model), rtol=1e-4, atol=1e-5)


def test_famo_learns_from_the_losses_after_the_step() -> None:
    mtl = optimizer("famo")
    before = mtl.step(batch())
    after = losses(mtl.objective.model, batch())
    mirror = eq.FAMO()
    mirror.decide(eq.balance.Observation.of_all(torch.stack(list(before.values()))))
    mirror.observe(torch.stack(list(before.values())), torch.stack(list(after.values())).detach(), (0, 1, 2))
    assert torch.allclose(mtl.balancer.logits, mirror.logits)
    assert not mtl.balancer.logits.requires_grad


def test_the_double_loop_of_ldc_evaluates_elsewhere() -> None:
    mtl = optimizer(eq.LDCMTL(double_loop=True, initial=[1.0, 8.0, 0.1]))
    mtl.step(batch())
    mtl.step(batch(1), batch(2))
    assert mtl.steps == 2


@pytest.mark.parametrize("seek", ["sharpness", "mean"])
@pytest.mark.parametrize("formulation", [PaperFormulation(), ParetoFormulation(gamma=0.1), ReleasedFormulation()])
def test_a_teleport_looks_at_probes(formulation: Formulation, seek: str) -> None:
    schedule = Schedule(budget=None, cooldown=1)
    search = Search(steps=2, lr=1e-6, formulation=formulation, seek=seek)
    teleport = COST(trigger=lambda gramian: True, probes=Probes("current"), schedule=schedule, search=search)
    mtl = optimizer("fairgrad", teleport=teleport)
    now = losses(mtl.objective.model, batch())
    mtl.step(batch())
    report = mtl.last.teleport
    assert len(report.invariance) == 2
    assert report.losses_before == pytest.approx(report.losses_after, rel=1e-2)
    assert report.losses_after == pytest.approx([float(loss.detach()) for loss in now.values()], rel=1e-2)


@pytest.mark.filterwarnings("ignore:the layer that is .last. for all tasks")
def test_a_proxy_takes_the_step() -> None:
    for function in (losses, lazy):
        mtl = optimizer("fairgrad", function, proxy="auto")
        mtl.step(batch())
        mtl.step(batch(1), batch(2))
        assert mtl.steps == 2


def test_task_weights_on_held_out_data() -> None:
    made = model()
    weighting = TaskWeighting(eq.Objective(made, losses), torch.optim.SGD(made.parameters(), 0.01))
    weighting.step(batch(), batch(1))
    assert weighting.objective.tasks.names == ("energy", "force", "charge")


def test_a_careful_lower_level_compares_values() -> None:
    alpha, omega = torch.zeros(2), torch.ones(2)

    def lower(alpha: Tensor, omega: Tensor, batch: object) -> Tensor:
        inputs = torch.ones(2, requires_grad=True)
        (slope,) = torch.autograd.grad((inputs * omega).square().sum(), inputs, create_graph=True)
        return (slope - alpha).square().sum()

    problem = BilevelProblem(lower, lambda alpha, omega, batch: [(omega - 1).square().sum() + alpha.sum()], (alpha, omega))
    solver = FORUM(problem, torch.optim.SGD([alpha, omega], 0.1), lower_steps=2, lower_lr=0.01)
    solver.careful = True
    solver.step(iter([None] * 4), None)


def test_a_study_evaluates_metrics_that_differentiate() -> None:
    made = model()

    class Problem:
        name = "atoms"

        @staticmethod
        def evaluate(model: nn.Module, loader: Iterable[Batch]) -> dict[str, Tensor]:
            return {"force": losses(model, next(iter(loader)))["force"]}

    metric = eq.metrics.Metric("force", "force", higher_is_better=False)
    found = _evaluated(Problem(), made, [batch()], (metric,))
    assert found["force"] == pytest.approx(float(losses(made, batch())["force"].detach()))
