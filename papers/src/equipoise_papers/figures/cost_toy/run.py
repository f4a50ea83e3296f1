"""All trajectories of the figure in one batch, and who ended on the Pareto set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.errors import InputError
from equipoise.method import MethodSpec
from equipoise_papers.figures.cost_toy.settings import CostToySettings
from equipoise_papers.figures.cost_toy.teleporter import CostToyAttempt, RowwiseAdam, Teleporter
from equipoise_papers.figures.cost_toy.weights import weights_of
from equipoise_papers.toys import TOLERANCE, ParetoCurve, TwoTasks

__all__ = ["CostToyOutcome", "CostToyTrajectories", "Trajectory", "outcomes", "run", "settled"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """Which trajectory it is.

    Attributes:
        balancer: its name.
        start: number of the starting point.
        seed: of COST; ``None`` for the balancer alone, in which nothing is random.
    """

    balancer: str
    start: int
    seed: int | None


@dataclass(frozen=True)
class CostToyTrajectories:
    """What came out.

    Attributes:
        settings: what was asked for.
        rows: which trajectory each row is.
        steps: after how many steps the positions were recorded, ``[T]``.
        positions: ``[T, n, 2]``.
        attempts: of all teleports, in the order of their steps.
    """

    settings: CostToySettings
    rows: tuple[Trajectory, ...]
    steps: NDArray[np.int64]
    positions: Array
    attempts: tuple[CostToyAttempt, ...]

    @property
    def problem(self) -> TwoTasks:
        """On which the trajectories were run."""
        return TwoTasks(self.settings.sign, self.settings.factor)

    def rows_of(self, balancer: str, start: int, *, teleporting: bool) -> list[int]:
        """Rows of a balancer from a starting point: with COST one for each seed, alone a single one."""
        return [
            number
            for number, row in enumerate(self.rows)
            if row.balancer == balancer and row.start == start and (row.seed is not None) == teleporting
        ]


def run(settings: CostToySettings, told: Callable[[int], None] | None = None) -> CostToyTrajectories:
    """Runs every balancer from every starting point, alone and with COST on top.

    Args:
        settings: what to run.
        told: called now and then with the number of steps done.

    Raises:
        InputError: a balancer that cannot be run in a batch, or the same one twice.
    """
    problem = TwoTasks(settings.sign, settings.factor)
    rows = tuple(
        Trajectory(name, start, seed)
        for name in settings.balancers
        for seed in (None, *settings.seeds)
        for start in range(len(settings.starts))
    )
    crews = _crews(settings, rows)
    points = torch.tensor([settings.starts[row.start] for row in rows], dtype=torch.float64)
    adam = RowwiseAdam(points, settings.lr)
    teleporting = [number for number, row in enumerate(rows) if row.seed is not None]
    teleporter = Teleporter(
        problem,
        settings.teleporting,
        teleporting,
        [row.seed for row in rows if row.seed is not None],
        [crews[rows[number].balancer].forms_gramian for number in teleporting],
    )
    recorded_at, recorded = [0], [points.numpy().copy()]

    def balanced() -> tuple[Array, torch.Tensor]:
        _, jacobian = problem.gradients(points)
        gramian = (jacobian @ jacobian.mT).numpy()
        weights = np.concatenate([crew.weigh(gramian[crew.rows]) for crew in crews.values()])
        return gramian, (torch.from_numpy(weights)[:, :, None] * jacobian).sum(1)

    for step in range(settings.steps):
        gramian, combined = balanced()
        if teleporter.teleport(step, adam, gramian, combined):
            _, combined = balanced()
            teleporter.settle(adam, combined)
        adam.step(combined)
        if (step + 1) % settings.record_every == 0 or step + 1 == settings.steps:
            recorded_at.append(step + 1)
            recorded.append(points.numpy().copy())
            if told is not None:
                told(step + 1)
    return CostToyTrajectories(settings, rows, np.asarray(recorded_at), np.stack(recorded), tuple(teleporter.attempts))


@dataclass(frozen=True)
class _Crew:
    """The rows of one balancer, which lie together."""

    weigh: Callable[[Array], Array]
    rows: slice
    forms_gramian: bool


def _crews(settings: CostToySettings, rows: tuple[Trajectory, ...]) -> dict[str, _Crew]:
    each = len(rows) // len(settings.balancers)
    crews: dict[str, _Crew] = {}
    for number, name in enumerate(settings.balancers):
        spec = MethodSpec.parse(name)
        if spec.teleport is not None:
            raise InputError(
                f'"{name}" teleports already; every balancer is run alone and with COST, so write "{spec.balancer}"'
            )
        made, _ = spec.make(0)
        crews[name] = _Crew(weights_of(made), slice(number * each, (number + 1) * each), made.needs != "losses")
    return crews


@dataclass(frozen=True)
class CostToyOutcome:
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


def settled(trajectories: CostToyTrajectories, tolerance: float = TOLERANCE) -> tuple[list[int | None], list[bool]]:
    """When each trajectory came to the Pareto set.

    Returns:
        The number of steps after which it was on the set for good, ``None`` if it does not end there; and whether it was on
        it at any time. Both as far as the recorded positions tell.
    """
    inside = ParetoCurve(trajectories.problem).contains(trajectories.positions, tolerance)
    since: list[int | None] = []
    for column in inside.T:
        outside = np.flatnonzero(~column)
        first = int(outside[-1]) + 1 if outside.size else 0
        since.append(int(trajectories.steps[first]) if first < len(column) else None)
    return since, [bool(column.any()) for column in inside.T]


def outcomes(trajectories: CostToyTrajectories, tolerance: float = TOLERANCE) -> list[CostToyOutcome]:
    """The rows of the table, balancer by balancer.

    Args:
        trajectories: what was run.
        tolerance: of :meth:`equipoise_papers.toys.ParetoCurve.contains`.
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
                CostToyOutcome(
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
