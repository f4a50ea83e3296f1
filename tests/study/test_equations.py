"""The problems ``poisson`` and ``burgers``: their solutions against the equations, and what a run of them is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.study import find_problem
from equipoise.study.equations import burgers_solution
from equipoise.study.methods import parse_method
from equipoise.study.plan import Run
from equipoise.study.training import train

NU = 0.01 / math.pi


def test_the_front_is_as_steep_as_is_known() -> None:
    """Basdevant et al. (1986): the largest slope at x = 0 is 152.00516, at t = 1.6037/π."""
    step = 1e-5
    u = burgers_solution(np.array([-step, step]), np.full(2, 1.6037 / math.pi), NU)
    assert (u[0] - u[1]) / (2 * step) == pytest.approx(152.00516, rel=1e-5)


def test_the_solution_solves_burgers_equation() -> None:
    x, t, h = np.linspace(-0.9, 0.85, 8), np.linspace(0.05, 0.95, 8), 1e-4
    x, t = np.meshgrid(x, t)
    at = {(i, j): burgers_solution(x + i * h, t + j * h, 0.1) for i, j in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))}
    slope, rate = (at[1, 0] - at[-1, 0]) / (2 * h), (at[0, 1] - at[0, -1]) / (2 * h)
    curvature = (at[1, 0] - 2 * at[0, 0] + at[-1, 0]) / h**2
    np.testing.assert_allclose(rate + at[0, 0] * slope, 0.1 * curvature, atol=1e-5)
    np.testing.assert_allclose(burgers_solution(x, np.zeros_like(x), NU), -np.sin(np.pi * x), atol=1e-12)
    np.testing.assert_allclose(burgers_solution(np.ones(3), np.array([0.1, 0.5, 1.0]), NU), 0, atol=1e-12)


class Known(nn.Module):
    """In the place of the network: a formula."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.points, self.formula = nn.ModuleDict(), formula

    def forward(self, points: Tensor) -> Tensor:
        return self.formula(points)


def test_the_losses_of_the_solution_are_zero_and_those_of_another_function_by_hand() -> None:
    problem = find_problem("poisson:frequency=3,points=9")
    (batch, *_), _, (grid,) = problem.data(0)
    losses = problem.build(0)[1]
    double = {task: points.double() for task, points in batch.items()}
    solved = losses(Known(lambda p: torch.sin(math.pi * p[:, 0]) * torch.sin(3 * math.pi * p[:, 1])), double)
    assert all(float(loss.detach()) < 1e-20 for loss in solved.values())
    # u = x² + y: Δu = 2 and f = −10π² sin sin; on the border u itself is left.
    other = losses(Known(lambda p: p[:, 0] ** 2 + p[:, 1]), double)
    x, y = double["residual"].T
    off = 2 + 10 * math.pi**2 * torch.sin(math.pi * x) * torch.sin(3 * math.pi * y)
    torch.testing.assert_close(other["residual"].detach(), off.square().mean())
    x, y = double["border"].T
    torch.testing.assert_close(other["border"].detach(), (x**2 + y).square().mean())
    assert ((x % 1 == 0) | (y % 1 == 0)).all()
    x, y = grid["border"].T
    assert all(side.any() for side in (x == 0, x == 1, y == 0, y == 1))


def test_burgers_residual_by_hand() -> None:
    problem = find_problem("burgers:viscosity=0.1,points=8")
    (batch, *_), _, _ = problem.data(3)
    double = {task: points.double() for task, points in batch.items()}
    found = problem.build(0)[1](Known(lambda p: p[:, 0] ** 2 * p[:, 1]), double)
    x, t = double["residual"].T
    torch.testing.assert_close(found["residual"].detach(), (x**2 + 2 * x**3 * t**2 - 0.2 * t).square().mean())
    x, t = double["initial"].T
    torch.testing.assert_close(found["initial"].detach(), torch.sin(math.pi * x).square().mean())
    assert (batch["initial"][:, 1] == 0).all()
    assert (batch["border"][:, 0].abs() == 1).all()
    assert (batch["residual"].min(0).values >= torch.tensor([-1.0, 0.0])).all()


@pytest.mark.parametrize("name", ["poisson:points=8", "burgers:points=8,self_adaptive=true"])
def test_a_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.study.equations._STEPS", 3)
    problem = find_problem(name)
    record = train(problem, Run(0, method=parse_method("ntk")), epochs=1, gramian_every=0)
    assert set(record["final"]["test"]) == {metric.name for metric in problem.metrics}


def test_points_of_their_own_weights_and_numbers_that_make_no_sense() -> None:
    model, _ = find_problem("burgers:points=8,self_adaptive=true").build(0)[:2]
    assert sorted(name for name, _ in model.named_parameters() if name.startswith("points")) == [
        f"points.{task}.scales" for task in ("border", "initial", "residual")
    ]
    for bad in ("poisson:frequency=0", "poisson:points=0", "burgers:viscosity=0", "burgers:epochs=0"):
        with pytest.raises(eq.InputError, match="at least"):
            find_problem(bad)
