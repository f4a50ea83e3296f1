"""The five solvers on problems with known answers, and one step of each against its equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelSolver, MoCoBilevel
from equipoise.solvers import constrained_descent, printed_constrained_descent
from tests.bilevel.problems import Quadratic, distance_to_optimal, synthetic

STARTS = [(0.0, (0.0, 3.0)), (2.0, (3.0, 3.0))]
SOLVERS: dict[str, tuple[Callable[..., BilevelSolver], float, dict[str, Any]]] = {
    "moml": (MOML, 0.3, {}),
    "moco": (MoCoBilevel, 0.3, {}),
    "forum": (FORUM, 0.3, {"rho": 0.3}),
    "bome": (BOME, 0.3, {"rho": 0.3}),
    "bvfim": (BVFIM, 0.05, {"decay": 1.01}),
}


def made(name: str, alpha: torch.Tensor, omega: torch.Tensor, problem: Any, **options: Any) -> BilevelSolver:
    kind, lr, own = SOLVERS[name]
    held = [alpha, omega] if kind.moves_both else [alpha]  # type: ignore[attr-defined]
    return kind(problem, torch.optim.SGD(held, lr), **({"lower_steps": 50, "lower_lr": 0.05} | own | options))


@pytest.mark.parametrize(("alpha", "omega"), STARTS)
@pytest.mark.parametrize(
    ("name", "steps", "within"),
    [("moml", 40, 1e-8), ("moco", 100, 1e-3), ("forum", 120, 1e-5), ("bome", 100, 1e-4), ("bvfim", 100, 0.15)],
)
def test_reach_the_optimal_set_of_the_synthetic_problem(
    name: str, steps: int, within: float, alpha: float, omega: tuple[float, float]
) -> None:
    upper, lower, problem = synthetic(alpha, omega)
    solver = made(name, upper, lower, problem)
    for _ in range(steps):
        solver.step()
    assert distance_to_optimal(upper, lower) < within
    assert solver.last is not None
    if name == "forum":
        assert solver.last.stationarity < 1e-8
        assert 0 <= solver.last.constraint < 1e-10
        assert float(solver.last.weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("formulation", ["optimal", "printed"])
def test_forum_takes_the_step_of_its_equations(formulation: str) -> None:
    solve, twice = (constrained_descent, 1) if formulation == "optimal" else (printed_constrained_descent, 2)
    quadratic = Quadratic()
    alpha, omega = quadratic.alpha, quadratic.omega
    solver = FORUM(
        quadratic.problem,
        torch.optim.SGD([alpha, omega], 0.1),
        lower_steps=7,
        lower_lr=0.2,
        rho=0.4,
        formulation=formulation,  # type: ignore[arg-type]
    )
    kept = np.full(3, 1 / 3)
    for step in range(4):
        before = torch.cat([alpha, omega]).detach()
        a, w = alpha.detach().clone().requires_grad_(), omega.detach().clone().requires_grad_()
        answer = w.detach().clone()
        for _ in range(7):
            answer -= 0.2 * (quadratic.a @ answer - quadratic.b @ a.detach() - quadratic.offset)
        gap = quadratic.lower(a, w, None) - quadratic.lower(a, answer, None)
        constraint = torch.cat(torch.autograd.grad(gap, (a, w)))
        rows = [torch.cat(torch.autograd.grad(value, (a, w), retain_graph=True)) for value in quadratic.upper(a, w, None)]
        gramian = torch.stack([*rows, constraint]) @ torch.stack([*rows, constraint]).T
        phi = 0.5 * 0.4 * float(constraint.square().sum())
        solved, _ = solve(gramian, phi)
        share = (step + 1) ** -0.75
        kept = (1 - share) * kept + share * solved
        multiplier = max(0.0, (twice * phi - kept @ gramian[:-1, -1].numpy()) / float(gramian[-1, -1]))
        direction = torch.from_numpy(kept) @ torch.stack(rows) + multiplier * constraint

        values = solver.step()
        torch.testing.assert_close(torch.cat([alpha, omega]).detach(), before - 0.1 * direction, rtol=1e-10, atol=1e-12)
        assert solver.last is not None
        assert solver.last.constraint == pytest.approx(float(gap.detach()))
        assert solver.last.multiplier == pytest.approx(multiplier)
        assert solver.last.stationarity == pytest.approx(float(direction.square().sum()))
        assert list(values) == ["objective0", "objective1", "objective2"]


def test_forum_with_normalised_gradients_steps_along_unit_gradients() -> None:
    quadratic = Quadratic()
    held = [quadratic.alpha, quadratic.omega]
    solver = FORUM(quadratic.problem, torch.optim.SGD(held, 0.1), lower_steps=7, lower_lr=0.2, rho=0.0, normalize=True)
    a, w = (value.detach().clone().requires_grad_() for value in held)
    rows = [torch.cat(torch.autograd.grad(value, (a, w), retain_graph=True)) for value in quadratic.upper(a, w, None)]
    solver.step()
    assert solver.last is not None
    weighted = solver.last.weights * torch.stack([row.norm() for row in rows])
    assert float(weighted.sum()) == pytest.approx(1)


@pytest.mark.parametrize("barrier", ["gradient", "value"])
def test_bome_takes_the_step_of_its_equations(barrier: str) -> None:
    quadratic = Quadratic()
    alpha, omega = quadratic.alpha, quadratic.omega
    before = torch.cat([alpha, omega]).detach().clone()
    a, w = alpha.detach().clone().requires_grad_(), omega.detach().clone().requires_grad_()
    answer = w.detach().clone()
    for _ in range(3):
        answer -= 0.2 * (quadratic.a @ answer - quadratic.b @ a.detach() - quadratic.offset)
    gap = quadratic.lower(a, w, None) - quadratic.lower(a, answer, None)
    constraint = torch.cat(torch.autograd.grad(gap, (a, w)))
    mean = torch.cat(torch.autograd.grad(quadratic.upper(a, w, None).mean(), (a, w)))
    phi = 2.0 * (constraint.square().sum() if barrier == "gradient" else gap.detach())
    multiplier = ((phi - mean @ constraint) / constraint.square().sum()).clamp(min=0)

    BOME(quadratic.problem, torch.optim.SGD([alpha, omega], 0.1), lower_steps=3, lower_lr=0.2, rho=2.0, barrier=barrier).step()
    torch.testing.assert_close(torch.cat([alpha, omega]).detach(), before - 0.1 * (mean + multiplier * constraint))


def test_bvfim_takes_the_step_of_its_equations() -> None:
    quadratic = Quadratic()
    alpha, omega = quadratic.alpha, quadratic.omega
    # From the lower level's own solution, where the barrier is feasible.
    with torch.no_grad():
        omega.copy_(torch.linalg.solve(quadratic.a, quadratic.b @ alpha + quadratic.offset))
    before = torch.cat([alpha, omega]).detach().clone()
    a, w = alpha.detach().clone().requires_grad_(), omega.detach().clone().requires_grad_()
    answer = w.detach().clone()
    for _ in range(3):
        answer = 0.98 * answer - 0.2 * (quadratic.a @ answer - quadratic.b @ a.detach() - quadratic.offset)
    gap = quadratic.lower(a, w, None) - quadratic.lower(a, answer, None)
    assert float(gap.detach()) < 0.05
    slack = 0.1 - gap.detach()
    expected = torch.cat(
        torch.autograd.grad(quadratic.upper(a, w, None).mean() + 0.5 * 0.01 * w.square().sum() + 0.3 / slack * gap, (a, w))
    )
    BVFIM(
        quadratic.problem,
        torch.optim.SGD([alpha, omega], 0.1),
        lower_steps=3,
        lower_lr=0.2,
        barrier=0.3,
        regularization=0.01,
        margin=0.1,
    ).step()
    torch.testing.assert_close(torch.cat([alpha, omega]).detach(), before - 0.1 * expected)


@pytest.mark.parametrize("balancer", ["mgda", "ls", "cagrad", "graddrop", "nash-mtl", "uw"])
def test_moml_combines_hypergradients_by_any_balancer(balancer: str) -> None:
    quadratic = Quadratic()
    rows, solution = quadratic.hypergradients(4, 0.2)
    before = quadratic.alpha.detach().clone()
    solver = MOML(quadratic.problem, torch.optim.SGD([quadratic.alpha], 0.1), lower_steps=4, lower_lr=0.2, balancer=balancer)
    solver.step()
    moved = (before - quadratic.alpha.detach()) / 0.1
    own = eq.balancer(balancer)
    observation = eq.balance.Observation(
        ("a", "b", "c"),
        (0, 1, 2),
        torch.stack([0.5 * (solution - target).square().sum() for target in quadratic.targets]) + quadratic.slopes @ before,
        gramian=rows @ rows.T,
        gradients=rows,
    )
    answer = own.decide(observation)
    expected = answer if own.needs == "gradients" else answer.double() @ rows
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(quadratic.omega.detach(), solution)


def test_moco_is_its_balancer_on_the_hypergradients() -> None:
    quadratic = Quadratic()
    solver = MoCoBilevel(
        quadratic.problem, torch.optim.SGD([quadratic.alpha], 0.1), lower_steps=2, lower_lr=0.2, beta=1.0, gamma=0.0
    )
    rows, _ = quadratic.hypergradients(2, 0.2)
    before = quadratic.alpha.detach().clone()
    solver.step()
    torch.testing.assert_close((before - quadratic.alpha.detach()) / 0.1, rows.mean(0))


def test_starting_cold_means_starting_from_the_first_variables() -> None:
    quadratic = Quadratic()
    first = quadratic.omega.detach().clone()
    solver = MOML(quadratic.problem, torch.optim.SGD([quadratic.alpha], 0.1), lower_steps=3, lower_lr=0.2, start="cold")
    for _ in range(3):
        quadratic_at = Quadratic()
        quadratic_at.alpha = quadratic.alpha.detach().clone()
        quadratic_at.omega = first
        _, solution = quadratic_at.hypergradients(3, 0.2)
        solver.step()
        torch.testing.assert_close(quadratic.omega.detach(), solution)


def test_one_objective_is_ordinary_bilevel_optimisation() -> None:
    # In single precision the lower level's steps cannot resolve the last 1e-3 of this.
    alpha, omega = torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    problem = eq.bilevel.BilevelProblem(
        lambda alpha, omega, batch: (omega - alpha).square(),
        lambda alpha, omega, batch: (omega - 1).square() + 0.1 * alpha.square(),
        (alpha, omega),
    )
    solver = FORUM(problem, torch.optim.SGD([alpha, omega], 0.1), lower_steps=20, lower_lr=0.2)
    for _ in range(200):
        solver.step()
    assert float(alpha.detach()) == pytest.approx(1 / 1.1, abs=1e-3)
    assert problem.objectives == ("objective0",)
