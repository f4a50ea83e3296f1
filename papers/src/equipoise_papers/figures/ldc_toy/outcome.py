"""Where each trajectory ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise_papers.figures.ldc_toy.run import Trajectories
from equipoise_papers.toys import TOLERANCE, ParetoSet

__all__ = ["Outcome", "outcomes", "spread"]


@dataclass(frozen=True)
class Outcome:
    """One method from one starting point.

    Attributes:
        method: its name.
        start: the starting point.
        end: where it ended.
        losses: there, not shifted.
        pareto: whether that is on the Pareto set.
        steps: after how many steps it was there for good; ``None`` if it is not.
        gap: |10 L_1 − L_2| there: how far the losses are from balance once the factor 0.1 is taken off.
    """

    method: str
    start: tuple[float, float]
    end: tuple[float, float]
    losses: tuple[float, float]
    pareto: bool
    steps: int | None
    gap: float


def outcomes(trajectories: Trajectories, tolerance: float = TOLERANCE) -> list[Outcome]:
    """The rows of the table, method by method."""
    settings = trajectories.settings
    inside = ParetoSet(settings.problem).contains(trajectories.positions.reshape(-1, 2), tolerance)
    inside = inside.reshape(trajectories.positions.shape[:-1])
    table = []
    for number, method in enumerate(settings.methods):
        for place, start in enumerate(settings.starts):
            outside = np.flatnonzero(~inside[:, number, place])
            first = int(outside[-1]) + 1 if outside.size else 0
            end, losses = trajectories.positions[-1, number, place], trajectories.losses[-1, number, place]
            there = first < len(inside)
            table.append(
                Outcome(
                    method,
                    start,
                    (float(end[0]), float(end[1])),
                    (float(losses[0]), float(losses[1])),
                    there,
                    int(trajectories.steps[first]) if there else None,
                    abs(10.0 * float(losses[0]) - float(losses[1])),
                )
            )
    return table


def spread(table: list[Outcome], method: str) -> float:
    """The largest distance between the ends of a method's trajectories."""
    ends = np.array([outcome.end for outcome in table if outcome.method == method])
    return float(np.linalg.norm(ends[:, None] - ends[None], axis=-1).max())
