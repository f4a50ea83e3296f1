"""Who ended on the Pareto set, after how many steps, with how many teleports."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np

from equipoise_papers.figures.cost_toy.run import Trajectories
from equipoise_papers.toys import TOLERANCE, ParetoSet

__all__ = ["Outcome", "outcomes", "settled"]


@dataclass(frozen=True)
class Outcome:
    """One balancer from one starting point.

    Attributes:
        balancer: its name.
        start: the starting point.
        runs: how many seeds.
        alone: how many end on the set without COST: all or none, as nothing is random there.
        with_cost: how many end on it with COST.
        steps_alone: steps until it is on the set for good; ``None`` if it never is.
        steps_with_cost: the median of the same over the seeds that end there; ``None`` if none does.
        left: how many were on the set with COST once, and are not at the end.
        accepted: teleports with COST, over all seeds.
        attempted: attempts to teleport, over all seeds.
        change: median over the teleports of :attr:`needed` of the mean absolute loss change; ``None`` if there are none.
        needed: median over the seeds of the teleports before the set was reached for good; ``None`` if none did.
    """

    balancer: str
    start: tuple[float, float]
    runs: int
    alone: int
    with_cost: int
    steps_alone: int | None
    steps_with_cost: float | None
    left: int
    accepted: int
    attempted: int
    needed: float | None
    change: float | None


def settled(trajectories: Trajectories, tolerance: float = TOLERANCE) -> tuple[list[int | None], list[bool]]:
    """When each trajectory came to the Pareto set.

    Returns:
        The number of steps after which it was on the set for good, ``None`` if it does not end there; and whether it was on
        it at any time. Both as far as the recorded positions tell.
    """
    inside = ParetoSet(trajectories.problem).contains(trajectories.positions, tolerance)
    since: list[int | None] = []
    for column in inside.T:
        outside = np.flatnonzero(~column)
        first = int(outside[-1]) + 1 if outside.size else 0
        since.append(int(trajectories.steps[first]) if first < len(column) else None)
    return since, [bool(column.any()) for column in inside.T]


def outcomes(trajectories: Trajectories, tolerance: float = TOLERANCE) -> list[Outcome]:
    """The rows of the table, balancer by balancer.

    Args:
        trajectories: what was run.
        tolerance: of :meth:`equipoise_papers.toys.ParetoSet.contains`.
    """
    settings = trajectories.settings
    since, ever = settled(trajectories, tolerance)
    table = []
    for balancer in settings.balancers:
        for number, start in enumerate(settings.starts):
            (alone,) = trajectories.rows_of(balancer, number, teleporting=False)
            rows = trajectories.rows_of(balancer, number, teleporting=True)
            steps = {row: count for row in rows if (count := since[row]) is not None}
            attempts = [attempt for attempt in trajectories.attempts if attempt.row in rows]
            landed = [attempt for attempt in attempts if attempt.accepted]
            needed = [sum(attempt.row == row and attempt.step < count for attempt in landed) for row, count in steps.items()]
            changes = [attempt.change for attempt in landed if attempt.step < steps.get(attempt.row, 0)]
            table.append(
                Outcome(
                    balancer,
                    start,
                    runs=len(rows),
                    alone=0 if since[alone] is None else len(rows),
                    with_cost=len(steps),
                    steps_alone=since[alone],
                    steps_with_cost=median(steps.values()) if steps else None,
                    left=sum(ever[row] and since[row] is None for row in rows),
                    accepted=len(landed),
                    attempted=len(attempts),
                    needed=median(needed) if needed else None,
                    change=median(changes) if changes else None,
                )
            )
    return table
