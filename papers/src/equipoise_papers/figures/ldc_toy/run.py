"""All trajectories of the figure, where each ended, and what a step of real training costs with each method."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.balance.base import Balancer, GramianBalancer, LossBalancer, Observation
from equipoise.errors import InputError
from equipoise.method import MethodSpec
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise_papers.figures.cost_toy.teleporter import RowwiseAdam
from equipoise_papers.figures.ldc_toy.settings import LDCToySettings
from equipoise_papers.toys import TOLERANCE, ParetoCurve

__all__ = ["FLOOR", "LDCToyOutcome", "LDCToyTrajectories", "outcomes", "run", "seconds_per_step", "shifted", "spread"]

Array = NDArray[np.float64]

FLOOR = torch.tensor([-2.1, -21.0], dtype=torch.float64)
"""Below all losses (the bowls end at -20, that of task 1 times 0.1), with the margin of FAMO's released toy experiment."""

_TASKS = ("task 1", "task 2")


def shifted(losses: Tensor) -> Tensor:
    """Losses less a lower bound.

    FAMO takes logarithms and LDC-MTL assumes losses that are not negative; the gradients stay as they are.
    """
    return losses - FLOOR.to(losses)


@dataclass(frozen=True)
class LDCToyTrajectories:
    """What came out.

    Attributes:
        settings: what was asked for.
        steps: after how many steps the positions were recorded, ``[T]``.
        positions: ``[T, methods, starts, 2]``.
        losses: not shifted, ``[T, methods, starts, 2]``.
    """

    settings: LDCToySettings
    steps: NDArray[np.int64]
    positions: Array
    losses: Array


def run(settings: LDCToySettings, told: Callable[[int], None] | None = None) -> LDCToyTrajectories:
    """Runs every method from every starting point.

    Args:
        settings: what to run.
        told: called now and then with the number of steps done.

    Raises:
        InputError: a method that teleports or works on gradients themselves.
    """
    problem, starts = settings.problem, len(settings.starts)
    crews = [_crew(method, starts) for method in settings.methods]
    points = torch.tensor(settings.starts, dtype=torch.float64).repeat(len(crews), 1)
    adam = RowwiseAdam(points, settings.lr)
    steps, positions = [0], [points.numpy().copy()]
    before: Tensor | None = None
    for step in range(settings.steps):
        losses, jacobian = problem.gradients(points)
        losses = shifted(losses)
        if before is not None:
            # Nothing is random here, so the losses of this step are those after the last one.
            for number, crew in enumerate(crews):
                part = slice(number * starts, (number + 1) * starts)
                crew.observe(before[part], losses[part])
        gramian = jacobian @ jacobian.mT
        parts = [slice(number * starts, (number + 1) * starts) for number in range(len(crews))]
        weights = torch.cat([crew.weigh(losses[part], gramian[part], step) for crew, part in zip(crews, parts, strict=True)])
        adam.step((weights[:, :, None] * jacobian).sum(1))
        before = losses
        if (step + 1) % settings.record_every == 0 or step + 1 == settings.steps:
            steps.append(step + 1)
            positions.append(points.numpy().copy())
            if told is not None:
                told(step + 1)
    every = np.stack(positions)
    values = problem.losses(torch.from_numpy(every)).numpy()
    shape = (len(every), len(crews), starts, 2)
    return LDCToyTrajectories(settings, np.asarray(steps), every.reshape(shape), values.reshape(shape))


@dataclass(frozen=True)
class _Crew:
    """The balancers of one method, one for each starting point."""

    balancers: tuple[Balancer, ...]

    def weigh(self, losses: Tensor, gramian: Tensor, step: int) -> Tensor:
        first = self.balancers[0]
        if isinstance(first, GramianBalancer) and not first.stateful:
            return first.weights(gramian)
        rows = []
        for balancer, own, q in zip(self.balancers, losses, gramian, strict=True):
            seen = Observation(_TASKS, (0, 1), own, q if balancer.needs == "gramian" else None, step=step)
            rows.append(balancer.decide(seen).double())
            balancer.update(seen)
        return torch.stack(rows)

    def observe(self, before: Tensor, after: Tensor) -> None:
        for balancer, own, then in zip(self.balancers, before, after, strict=True):
            if balancer.watches:
                balancer.observe(own, then, (0, 1))


def _crew(text: str, count: int) -> _Crew:
    spec = MethodSpec.parse(text)
    balancers = tuple(spec.balancer.make(0)[0] for _ in range(count))
    if spec.teleport is not None or not isinstance(balancers[0], LossBalancer | GramianBalancer):
        raise InputError(f'"{text}" cannot be run here: only balancers that look at losses or the Gramian, without a teleport')
    return _Crew(balancers)


@dataclass(frozen=True)
class LDCToyOutcome:
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


def outcomes(trajectories: LDCToyTrajectories, tolerance: float = TOLERANCE) -> list[LDCToyOutcome]:
    """The rows of the table, method by method."""
    settings = trajectories.settings
    inside = ParetoCurve(settings.problem).contains(trajectories.positions.reshape(-1, 2), tolerance)
    inside = inside.reshape(trajectories.positions.shape[:-1])
    table = []
    for number, method in enumerate(settings.methods):
        for place, start in enumerate(settings.starts):
            outside = np.flatnonzero(~inside[:, number, place])
            first = int(outside[-1]) + 1 if outside.size else 0
            end, losses = trajectories.positions[-1, number, place], trajectories.losses[-1, number, place]
            there = first < len(inside)
            table.append(
                LDCToyOutcome(
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


def spread(table: list[LDCToyOutcome], method: str) -> float:
    """The largest distance between the ends of a method's trajectories."""
    ends = np.array([outcome.end for outcome in table if outcome.method == method])
    return float(np.linalg.norm(ends[:, None] - ends[None], axis=-1).max())


class _Point(nn.Module):
    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start, dtype=torch.float64))


def seconds_per_step(settings: LDCToySettings) -> dict[str, float]:
    """Median over the repeats of the mean seconds per step, by method.

    The methods take turns, so that whatever else the machine does falls on all of them.
    """
    taken: dict[str, list[float]] = {method: [] for method in settings.methods}
    for repeat in range(settings.repeats + 1):
        for method in settings.methods:
            seconds = _seconds(settings, method)
            if repeat:  # the first round warms up
                taken[method].append(seconds)
    return {method: statistics.median(own) for method, own in taken.items()}


def _seconds(settings: LDCToySettings, method: str) -> float:
    model, problem = _Point(settings.starts[0]), settings.problem

    def losses(model: nn.Module, batch: None) -> Tensor:
        return shifted(problem.losses(model.at))  # type: ignore[arg-type]

    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    mtl = MultiTaskOptimizer(Objective(model, losses), optimizer, method, shared=model)
    began = time.perf_counter()
    for _ in range(settings.timed_steps):
        mtl.step(None)
    return (time.perf_counter() - began) / settings.timed_steps
