"""What the batch computes in each row is what MultiTaskOptimizer with COST computes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.objective import Objective
from equipoise.study.methods import parse_method
from equipoise.teleport import COST, Dense, Guard, LowRank, PaperFormulation, Probes, Schedule, Search
from equipoise_papers.figures.cost_toy.run import run
from equipoise_papers.figures.cost_toy.settings import BALANCERS, CostToySettings, Teleporting
from equipoise_papers.figures.cost_toy.teleporter import directions, search
from equipoise_papers.toys import TwoTasks

CLOSE = {"rtol": 0.0, "atol": 1e-6}


class Point(nn.Module):
    """A model that is nothing but a point of the plane, as a matrix of one row."""

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self) -> torch.Tensor:
        return self.x[0]


def losses(problem: TwoTasks):
    def both(model: Point, batch: None) -> dict[str, torch.Tensor]:
        first, second = problem.losses(model()).unbind()
        return {"first": first, "second": second}

    return both


def library_cost(settings: Teleporting, seed: int) -> COST:
    """COST with the same settings."""
    return COST(
        "dominated",
        delta=Dense() if settings.delta == "dense" else LowRank(rank=1),
        search=Search(
            formulation=PaperFormulation(settings.gamma, settings.radius),
            samples=settings.samples,
            steps=settings.inner_steps,
            lr=settings.inner_lr,
            scaling="relative" if settings.relative else "none",
        ),
        probes=Probes(probe="current"),
        guard=Guard(settings.tolerance, conflict=True) if settings.guard else None,
        history=settings.history,
        schedule=Schedule(
            start_step=settings.start_step,
            stop_step=settings.stop_step,
            cooldown=settings.cooldown,
            budget=None,
            check_every=settings.check_every,
        ),
        seed=seed,
    )


def library_path(problem: TwoTasks, name: str, start: tuple[float, float], steps: int, cost: COST | None) -> np.ndarray:
    model = Point(start)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mtl = eq.MultiTaskOptimizer(
        Objective(model, losses(problem)), optimizer, parse_method(name).make(0), shared=model, teleport=cost
    )
    positions = [model.x[0].detach().numpy().copy()]
    for _ in range(steps):
        mtl.step(None)
        positions.append(model.x[0].detach().numpy().copy())
    return np.stack(positions)


@pytest.mark.parametrize("factor", [False, True])
def test_plain_balancers_take_the_same_path_step_by_step(factor):
    starts = ((-8.5, 7.5), (10.0, -8.0))
    settings = CostToySettings(factor=factor, balancers=BALANCERS, starts=starts, seeds=(0,), steps=80, record_every=1)
    trajectories = run(settings)
    for name in BALANCERS:
        for number, start in enumerate(starts):
            (row,) = trajectories.rows_of(name, number, teleporting=False)
            expected = library_path(TwoTasks(factor=factor), name, start, 80, None)
            np.testing.assert_allclose(trajectories.positions[:, row], expected, **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {"history": "reuse"},
        {"history": "reuse", "delta": "lowrank", "gamma": 1.0},
        {"history": "keep", "relative": True, "gamma": 1.0},
        {"history": "reset", "radius": 1.0, "stop_step": 40},
        {"guard": True, "tolerance": 0.3, "history": "reuse"},
        {"guard": True, "tolerance": 0.02, "relative": True, "samples": 1},
    ],
    ids=lambda options: ",".join(options),
)
def test_with_cost_the_same_teleports_and_the_same_path(options: dict[str, Any]):
    """Same seeds, same perturbations: attempts after the same steps, with the same landings, refused alike."""
    names, start, steps = ("ls", "nash-mtl"), (4.95, 3.0), 60
    cost = Teleporting(start_step=5, cooldown=12, inner_steps=15, check_every=4, **options)
    settings = CostToySettings(balancers=names, starts=(start,), seeds=(0, 3), steps=steps, record_every=1, teleporting=cost)
    trajectories = run(settings)
    attempts = 0
    for name in names:
        for row, seed in zip(trajectories.rows_of(name, 0, teleporting=True), settings.seeds, strict=True):
            teleport = library_cost(cost, seed)
            expected = library_path(TwoTasks(), name, start, steps, teleport)
            np.testing.assert_allclose(trajectories.positions[:, row], expected, **CLOSE)
            own = [attempt for attempt in trajectories.attempts if attempt.row == row]
            assert [(attempt.step, attempt.accepted) for attempt in own] == [
                (report.step, report.accepted) for report in teleport.attempts
            ]
            for attempt, report in zip(own, teleport.attempts, strict=True):
                distance = np.linalg.norm(np.subtract(attempt.landing, attempt.origin))
                assert distance == pytest.approx(report.distance, abs=1e-6)
                assert attempt.measure_before == pytest.approx(report.measure_before, abs=1e-6)
                assert attempt.measure_after == pytest.approx(report.measure_after, abs=1e-6)
            attempts += len(own)
    assert attempts >= 4


def test_the_search_of_one_row_does_not_depend_on_the_others():
    problem, cost = TwoTasks(), Teleporting(inner_steps=20)
    points = torch.tensor([[5.0, 3.0], [-5.0, 4.0], [1.0, -6.0]], dtype=torch.float64)
    _, jacobian = problem.gradients(points)
    gramian = (jacobian @ jacobian.mT).numpy()
    noise = directions([torch.Generator().manual_seed(seed) for seed in (1, 2, 3)], 100, torch.float64).view(20, 5, 3, 2)
    together = search(problem, points, cost, gramian, torch.ones_like(points), torch.zeros_like(points), noise)
    alone = search(
        problem,
        points[1:2],
        cost,
        gramian[1:2],
        torch.ones(1, 2, dtype=torch.float64),
        torch.zeros_like(points[:1]),
        noise[:, :, 1:2],
    )
    torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-9)
    assert float(together.norm(dim=1).min()) > 0.0
    torch.testing.assert_close(noise.norm(dim=-1), torch.ones(20, 5, 3, dtype=torch.float64))
