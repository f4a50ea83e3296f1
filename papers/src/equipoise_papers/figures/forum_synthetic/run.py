"""The curves of every method from every initialisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from equipoise.bilevel import FORUM, MOML, BilevelSolver, MoCoBilevel
from equipoise_papers.figures.forum_synthetic.problem import Synthetic
from equipoise_papers.figures.forum_synthetic.settings import INITIALISATIONS, METHODS, Settings

__all__ = ["Curves", "run"]


@dataclass(frozen=True)
class Curves:
    """What one method did from one initialisation, before each step and after the last.

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


def run(settings: Settings, told: Callable[[str], None] = lambda line: None, methods: Sequence[str] = METHODS) -> list[Curves]:
    """Runs everything.

    Args:
        settings: the numbers.
        told: called with a line now and then.
        methods: which.

    Raises:
        NonFiniteError: a method diverged.
    """
    curves = []
    for method in methods:
        for start in INITIALISATIONS:
            curves.append(_one(method, start, settings))
            told(f"{method} from α = {start[0]:g}, ω = {start[1]}: ℰ = {curves[-1].gaps[-1]:.1e}")
    return curves


def _one(method: str, start: tuple[float, tuple[float, float]], settings: Settings) -> Curves:
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


def _solver(method: str, at: Synthetic, settings: Settings) -> BilevelSolver:
    options: dict[str, Any] = {
        "lower_steps": settings.lower_steps,
        "lower_step_size": settings.lower_step_size,
        "start": settings.start,
    }
    if method == "forum":
        optimizer = torch.optim.SGD([at.alpha, at.omega], settings.step_size)
        return FORUM(at.problem, optimizer, rho=settings.rho, **options)
    kind = MOML if method == "moml" else MoCoBilevel
    return kind(at.problem, torch.optim.SGD([at.alpha], settings.step_size), **options)
