"""Problem (A.32) of the thesis, and the curves of every method on it.

Min over α, ω of (‖ω − (1, α)‖², ‖ω − (2, α)‖²), where ω minimizes ‖ω − α‖².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equipoise.bilevel import FORUM, MOML, BilevelProblem, BilevelSolver, MoCoBilevel
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.forum_synthetic.settings import INITIALIZATIONS, METHODS, ForumSyntheticSettings

__all__ = ["Curves", "Synthetic", "run"]


class Synthetic:
    """The problem at an initialization, and how far its variables are from solving it.

    Args:
        alpha: α_0.
        omega: ω_0.
    """

    def __init__(self, alpha: float, omega: tuple[float, float]) -> None:
        self.alpha = torch.tensor(alpha, dtype=torch.float64)
        self.omega = torch.tensor(omega, dtype=torch.float64)
        self.problem = BilevelProblem(_lower, _upper, (self.alpha, self.omega), objectives=("one", "two"))

    def gap(self) -> float:
        """Distance of (α, ω) to the optimal set {(c, c, c): 1 ≤ c ≤ 2}."""
        point = torch.cat([self.alpha.detach().reshape(1), self.omega.detach()])
        return float((point - point.mean().clamp(1.0, 2.0)).norm())

    def constraint(self) -> float:
        """The exact q(z) = f(z) − min f = f(z)."""
        return float(_lower(self.alpha, self.omega, None).detach())

    def stationarity(self, weights: Tensor, multiplier: float) -> float:
        """𝒦(z) = ‖Σ λ_i ∇F_i + ν ∇q‖² with the exact ∇q."""
        variables = (self.alpha, self.omega)
        total = multiplier * _lower(*variables, None)
        total = total + sum(weight * value for weight, value in zip(weights.tolist(), _upper(*variables, None), strict=True))
        return float(torch.cat([piece.reshape(-1) for piece in torch.autograd.grad(total, variables)]).square().sum())


def _lower(alpha: Tensor, omega: Tensor, batch: None) -> Tensor:
    return (omega - alpha).square().sum()


def _upper(alpha: Tensor, omega: Tensor, batch: None) -> list[Tensor]:
    return [(omega - torch.stack([alpha.new_tensor(end), alpha])).square().sum() for end in (1.0, 2.0)]


@dataclass(frozen=True)
class Curves:
    """What one method did from one initialization, before each step and after the last.

    Attributes:
        method: its name.
        start: α_0 and ω_0.
        gaps: the optimality gap ℰ.
        constraints: the exact q(z).
        stationarities: the exact 𝒦(z), for FORUM only; one less than the others.
        end: α and ω in the end.
    """

    method: str
    start: tuple[float, tuple[float, float]]
    gaps: list[float]
    constraints: list[float]
    stationarities: list[float]
    end: tuple[float, ...]


def run(settings: ForumSyntheticSettings, told: Told = silent, methods: Sequence[str] = METHODS) -> list[Curves]:
    """Runs everything.

    Args:
        settings: the numbers.
        told: takes a line now and then.
        methods: which.

    Raises:
        NonFiniteError: a method diverged.
    """
    curves = []
    for method in methods:
        for start in INITIALIZATIONS:
            curves.append(_one(method, start, settings))
            told(f"{method} from α = {start[0]:g}, ω = {start[1]}: ℰ = {curves[-1].gaps[-1]:.1e}")
    return curves


def _one(method: str, start: tuple[float, tuple[float, float]], settings: ForumSyntheticSettings) -> Curves:
    at = Synthetic(*start)
    solver = _solver(method, at, settings)
    gaps, constraints, stationarities = [at.gap()], [at.constraint()], []
    for _ in range(settings.steps):
        before = Synthetic(float(at.alpha.detach()), (float(at.omega[0].detach()), float(at.omega[1].detach())))
        solver.step()
        report = solver.last
        assert report is not None
        if report.multiplier is not None:
            assert report.weights is not None
            stationarities.append(before.stationarity(report.weights, report.multiplier))
        gaps.append(at.gap())
        constraints.append(at.constraint())
    end = (float(at.alpha.detach()), *at.omega.tolist())
    return Curves(method, start, gaps, constraints, stationarities, end)


def _solver(method: str, at: Synthetic, settings: ForumSyntheticSettings) -> BilevelSolver:
    options: dict[str, Any] = {"lower_steps": settings.lower_steps, "lower_lr": settings.lower_lr, "start": settings.start}
    if method == "forum":
        optimizer = torch.optim.SGD([at.alpha, at.omega], settings.lr)
        return FORUM(at.problem, optimizer, rho=settings.rho, **options)
    kind = MOML if method == "moml" else MoCoBilevel
    return kind(at.problem, torch.optim.SGD([at.alpha], settings.lr), **options)
