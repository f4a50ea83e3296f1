"""When and where each of many trajectories teleports: what COST does after a step, for all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.teleport import Guard, PaperFormulation, Schedule
from equipoise.teleport.history import similarity
from equipoise.teleport.schedule import Counters
from equipoise_papers.figures.cost_toy.adam import Adam
from equipoise_papers.figures.cost_toy.search import directions, search
from equipoise_papers.figures.cost_toy.settings import Teleporting
from equipoise_papers.toys import TwoTasks

__all__ = ["Attempt", "Teleporter"]

Array = NDArray[np.float64]
_SMALLEST_SIZE = 1e-3  # a loss near zero is divided by this share of the largest it ever was, as in COST


@dataclass(frozen=True)
class Attempt:
    """One attempt to teleport.

    Attributes:
        row: the trajectory.
        step: after which it was made, counted from 0.
        origin: θ.
        landing: θ + Δθ, moved to or not.
        change: mean over tasks of the absolute loss change.
        measure_before: the trigger's measure of conflict at θ.
        measure_after: the same at θ + Δθ.
        objection: why the trajectory did not move; empty where it did.
    """

    row: int
    step: int
    origin: tuple[float, float]
    landing: tuple[float, float]
    change: float
    measure_before: float
    measure_after: float
    objection: str

    @property
    def accepted(self) -> bool:
        """Whether the trajectory moved."""
        return not self.objection


class Teleporter:
    """Looks after some of the trajectories.

    Args:
        problem: the losses.
        settings: of COST.
        rows: which trajectories teleport, ``[n]``.
        seeds: one for each of these; as ``COST(seed=...)``.
        formed: whether the balancer underneath forms the Gramian anyway, one for each.
    """

    def __init__(
        self, problem: TwoTasks, settings: Teleporting, rows: Sequence[int], seeds: Sequence[int], formed: Sequence[bool]
    ) -> None:
        self.problem = problem
        self.settings = settings
        self.rows = np.asarray(rows, dtype=np.intp)
        self.attempts: list[Attempt] = []
        self._formed = np.asarray(formed, dtype=np.bool_)
        schedule = Schedule(
            start_step=settings.start_step, stop_step=settings.stop_step, cooldown=settings.cooldown, budget=None
        )
        self._counters = [Counters(schedule) for _ in rows]
        self._next = np.full(len(rows), settings.start_step)
        self._last_check = np.full(len(rows), -settings.check_every)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._guard = Guard(settings.tolerance, conflict=True) if settings.guard else None
        self._largest: dict[int, Array] = {}
        self._pending: dict[int, float] = {}

    def before_step(self, adam: Adam, gradients: Tensor) -> None:
        """Blends Adam's moments where a landing left that to do; ``gradients`` are all trajectories', ``[m, 2]``."""
        for row, sigma in self._pending.items():
            adam.blend(row, gradients[row], sigma)
        self._pending.clear()

    def after_step(self, step: int, adam: Adam, gram: Array, gradients: Tensor) -> None:
        """Attempts what is due.

        Args:
            step: index of the step just taken.
            adam: with the points ``[m, 2]`` of all trajectories.
            gram: Gramians ``[m, 2, 2]`` that were formed in this step, before it moved anything.
            gradients: the combined gradients of this step, ``[m, 2]``.
        """
        if self.settings.stop_step is not None and step >= self.settings.stop_step:
            return
        due = step >= self._next
        if not due.any():
            return
        due &= self._formed | (step - self._last_check >= self.settings.check_every)
        places = due.nonzero()[0]
        if not places.size:
            return
        own = gram[self.rows[places]]
        looks = ~self._formed[places]
        if looks.any():
            self._last_check[places[looks]] = step
            own[looks] = self._gramian(adam.points[self.rows[places[looks]]])[1]
        triggered = places[np.asarray(self.settings.trigger.measure(own)) > 0.0]
        if triggered.size:
            self._attempt(step, triggered, adam, gradients)

    def _gramian(self, points: Tensor) -> tuple[Array, Array]:
        losses, jacobian = self.problem.gradients(points)
        jacobian = jacobian.double()
        return losses.double().numpy(), (jacobian @ jacobian.mT).numpy()

    def _attempt(self, step: int, places: NDArray[np.intp], adam: Adam, gradients: Tensor) -> None:
        settings, rows = self.settings, self.rows[places]
        points = adam.points[rows].clone()
        losses, gram = self._gramian(points)
        sizes = np.stack([self._sizes(int(place), row) for place, row in zip(places, losses, strict=True)])
        seeds = [int(torch.randint(2**62, (), generator=self._generators[place])) for place in places]
        noise = directions(seeds, settings.inner_steps * settings.samples, points.dtype)
        noise = noise.view(settings.inner_steps, settings.samples, len(places), 2)
        deltas = search(self.problem, points, settings, gram, points.new_tensor(sizes), noise)
        landings = points + deltas
        losses_after, gram_after = self._gramian(landings)
        before = np.asarray(settings.trigger.measure(gram))
        after = np.asarray(settings.trigger.measure(gram_after))
        for number, (place, row) in enumerate(zip(places.tolist(), rows.tolist(), strict=True)):
            objection = ""
            if not (np.isfinite(losses_after[number]).all() and np.isfinite(gram_after[number]).all()):
                objection = "a loss or gradient is not finite there"
            elif self._guard is not None:
                judged = sizes[number] if settings.relative else np.abs(losses[number]).clip(min=1e-30)
                objection = self._guard.objection(
                    losses[number],
                    losses_after[number],
                    judged,
                    float(before[number]),
                    float(after[number]),
                    PaperFormulation(),
                )
            self._counters[place].count_attempt(step, accepted=not objection)
            self._next[place] = step + self._counters[place].wait
            if not objection:
                adam.points[row] = landings[number]
                self._settle_history(row, adam, deltas[number], gradients[row])
            self.attempts.append(
                Attempt(
                    row,
                    step,
                    _pair(points[number]),
                    _pair(landings[number]),
                    float(np.abs(losses_after[number] - losses[number]).mean()),
                    float(before[number]),
                    float(after[number]),
                    objection,
                )
            )

    def _sizes(self, place: int, losses: Array) -> Array:
        if not self.settings.relative:
            return np.ones_like(losses)
        own = np.abs(losses)
        self._largest[place] = np.maximum(own, self._largest.get(place, own))
        sizes: Array = np.maximum(own, _SMALLEST_SIZE * self._largest[place]).clip(min=1e-30)
        return sizes

    def _settle_history(self, row: int, adam: Adam, delta: Tensor, gradient: Tensor) -> None:
        if self.settings.history == "reset":
            adam.forget(row)
        elif self.settings.history == "reuse":
            self._pending[row] = similarity([(delta, gradient)])


def _pair(point: Tensor) -> tuple[float, float]:
    first, second = point.tolist()
    return first, second
