"""COST for many trajectories at once: Adam row by row, the inner search, and when and where each row teleports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.teleport import Guard, PaperFormulation, Schedule
from equipoise.teleport.history import similarity
from equipoise.teleport.measure import LossSizes
from equipoise.teleport.schedule import Counters
from equipoise.teleport.triggers import norms
from equipoise_papers.figures.cost_toy.settings import DeltaKind, Teleporting
from equipoise_papers.toys import TwoTasks

__all__ = ["CostToyAttempt", "RowwiseAdam", "Teleporter", "directions", "search", "starting_factors"]

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class RowwiseAdam:
    """``torch.optim.Adam`` with its default betas, row by row; every row may forget its history alone.

    Args:
        points: where the trajectories are, ``[n, 2]``; moved in place.
        lr: learning rate.
    """

    def __init__(self, points: Tensor, lr: float) -> None:
        self.points = points
        self.lr = lr
        self.first = torch.zeros_like(points)
        self.second = torch.zeros_like(points)
        self.steps = torch.zeros(len(points), 1, dtype=torch.float64)

    def step(self, gradients: Tensor) -> None:
        """Takes a step with gradients ``[n, 2]``."""
        self.steps += 1.0
        self.first.lerp_(gradients, 1.0 - _FIRST)
        self.second.mul_(_SECOND).addcmul_(gradients, gradients, value=1.0 - _SECOND)
        size = self.lr / (1.0 - _FIRST**self.steps)
        root = (self.second.sqrt() / (1.0 - _SECOND**self.steps).sqrt()).add_(_EPSILON)
        self.points -= size * self.first / root

    def forget(self, row: int) -> None:
        """Begins a row's history afresh."""
        for buffer in (self.first, self.second, self.steps):
            buffer[row] = 0.0

    def blend(self, row: int, gradient: Tensor, sigma: float) -> None:
        """Eq. 13 of the COST paper for one row, just before the step with its ``gradient`` ``[2]``.

        See :func:`equipoise.teleport.history.blend`.
        """
        sigma = min(max(sigma, 0.0), 1.0)
        steps = float(self.steps[row]) + 1.0
        for moments, beta, new in ((self.first, _FIRST, gradient), (self.second, _SECOND, gradient.square())):
            # With the mass that this step will divide by, and less what the step itself adds.
            mass = (1.0 - beta**steps) / (1.0 - sigma * beta**steps)
            average = mass * (sigma * beta * moments[row] + (1.0 - sigma * beta) * new)
            moments[row] = (average - (1.0 - beta) * new) / beta


Array = NDArray[np.float64]
_TINY = 1e-30
_ALPHA = 8.0  # of a low-rank delta, whose rank is 1 here


def starting_factors(kind: DeltaKind, generators: Sequence[torch.Generator], dtype: torch.dtype) -> Tensor:
    """Where a search begins: Δθ = 0 itself, ``[n, 2]``, or B = 0 and a random A of Δθ = 8 B A, side by side ``[n, 3]``.

    The low-rank one takes θ for a matrix of one row, and is drawn as :class:`~equipoise.teleport.LowRank` draws it.
    """
    if kind == "dense":
        return torch.zeros(len(generators), 2, dtype=dtype)
    made = torch.zeros(len(generators), 3, dtype=dtype)
    for row, generator in enumerate(generators):
        made[row, 1:] = torch.empty(2, dtype=dtype).uniform_(-(0.5**0.5), 0.5**0.5, generator=generator)
    return made


def _delta(factors: Tensor) -> Tensor:
    return factors if factors.shape[1] == 2 else _ALPHA * factors[:, :1] * factors[:, 1:]


def directions(generators: Sequence[torch.Generator], count: int, dtype: torch.dtype) -> Tensor:
    """Unit vectors, uniform on the circle, ``[count, len(generators), 2]``.

    Each is drawn as :class:`~equipoise.teleport.COST` draws the perturbation of a parameter of two entries, one call after
    the other, so that the same seed gives the same numbers here and there.
    """
    drawn = torch.empty(count, len(generators), 2, dtype=dtype)
    for row, generator in enumerate(generators):
        for number in range(count):
            drawn[number, row] = torch.randn(2, generator=generator, dtype=dtype)
    unit: Tensor = drawn / drawn.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    return unit


def search(
    problem: TwoTasks, points: Tensor, settings: Teleporting, gramian: Array, sizes: Tensor, factors: Tensor, noise: Tensor
) -> Tensor:
    """Minimises ``L_t - γ L_g`` (eq. 7 to 11) over Δθ with Adam, for each point by itself.

    Args:
        problem: the losses.
        points: θ, ``[n, 2]``.
        settings: γ, δ, inner steps and their learning rate.
        gramian: Gramians of the task gradients there ``[n, 2, 2]``, for R (eq. 10).
        sizes: what the losses are divided by, ``[n, 2]``.
        factors: where the search begins, see :func:`starting_factors`; they end where it ends.
        noise: unit vectors ``[inner steps, samples, n, 2]``.

    Returns:
        Δθ, ``[n, 2]``.
    """
    formulation = PaperFormulation(settings.gamma, settings.radius)
    balance = points.new_tensor(np.stack([formulation.balance(row) for row in norms(gramian) / sizes.numpy()]))
    reference = problem.losses(points) / sizes
    still = torch.zeros(1, *points.shape, dtype=points.dtype)
    inner = RowwiseAdam(factors, settings.inner_lr)
    rows = torch.arange(len(points))
    for directions_now in noise:
        moving = factors.clone().requires_grad_()
        evaluated = problem.losses(points + _delta(moving) + torch.cat((still, settings.radius * directions_now)))
        evaluated = evaluated / sizes
        invariance = (evaluated[0] - reference).abs().mean(-1)
        rises = (balance * (evaluated[1:] - evaluated[0])).mean(-1)
        with torch.no_grad():
            largest = rises.abs().argmax(0)
        objective = invariance - settings.gamma * rises[largest, rows].abs()
        # Rows do not touch each other, so the gradient of the sum is every row's own.
        (gradients,) = torch.autograd.grad(objective.sum(), moving)
        inner.step(gradients)
    return _delta(factors)


@dataclass(frozen=True)
class CostToyAttempt:
    """One attempt to teleport.

    Attributes:
        row: the trajectory.
        step: in which it was made, before the point was moved by the step itself; counted from 0.
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
        self.attempts: list[CostToyAttempt] = []
        self._formed = np.asarray(formed, dtype=np.bool_)
        schedule = Schedule(
            start_step=settings.start_step, stop_step=settings.stop_step, cooldown=settings.cooldown, budget=None
        )
        self._counters = [Counters(schedule) for _ in rows]
        self._next = np.full(len(rows), settings.start_step)
        self._last_check = np.full(len(rows), -settings.check_every)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._guard = Guard(settings.tolerance, conflict=True) if settings.guard else None
        self._sizes = [LossSizes(settings.relative) for _ in rows]
        self._sigmas: dict[int, float] = {}

    def settle(self, adam: RowwiseAdam, gradients: Tensor) -> None:
        """Before the step from the new points: does with Adam's moments what the history policy says.

        Args:
            adam: with the points.
            gradients: the combined gradients ``[m, 2]`` of all trajectories, at the new points.
        """
        for row, sigma in self._sigmas.items():
            if self.settings.history == "reset":
                adam.forget(row)
            elif self.settings.history == "reuse":
                adam.blend(row, gradients[row], sigma)
        self._sigmas.clear()

    def teleport(self, step: int, adam: RowwiseAdam, gramian: Array, gradients: Tensor) -> bool:
        """Attempts what is due, before the step; says whether a point has moved.

        Args:
            step: index of the step to come.
            adam: with the points ``[m, 2]`` of all trajectories.
            gramian: Gramians ``[m, 2, 2]`` there.
            gradients: the combined gradients there, ``[m, 2]``.
        """
        if self.settings.stop_step is not None and step >= self.settings.stop_step:
            return False
        due = step >= self._next
        if not due.any():
            return False
        due &= self._formed | (step - self._last_check >= self.settings.check_every)
        places = due.nonzero()[0]
        if not places.size:
            return False
        self._last_check[places[~self._formed[places]]] = step
        triggered = places[np.asarray(self.settings.trigger.measure(gramian[self.rows[places]])) > 0.0]
        if triggered.size:
            self._attempt(step, triggered, adam, gradients)
        return bool(self._sigmas)

    def _gramian(self, points: Tensor) -> tuple[Array, Array]:
        losses, jacobian = self.problem.gradients(points)
        jacobian = jacobian.double()
        return losses.double().numpy(), (jacobian @ jacobian.mT).numpy()

    def _attempt(self, step: int, places: NDArray[np.intp], adam: RowwiseAdam, gradients: Tensor) -> None:
        settings, rows = self.settings, self.rows[places]
        points = adam.points[rows].clone()
        losses, gramian = self._gramian(points)
        sizes = np.stack([self._sizes[place](row) for place, row in zip(places, losses, strict=True)])
        seeds = [int(torch.randint(2**62, (), generator=self._generators[place])) for place in places]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        factors = starting_factors(settings.delta, generators, points.dtype)
        noise = directions(generators, settings.inner_steps * settings.samples, points.dtype)
        noise = noise.view(settings.inner_steps, settings.samples, len(places), 2)
        deltas = search(self.problem, points, settings, gramian, points.new_tensor(sizes), factors, noise)
        landings = points + deltas
        losses_after, gramian_after = self._gramian(landings)
        before = np.asarray(settings.trigger.measure(gramian))
        after = np.asarray(settings.trigger.measure(gramian_after))
        for number, (place, row) in enumerate(zip(places.tolist(), rows.tolist(), strict=True)):
            objection = ""
            if not (np.isfinite(losses_after[number]).all() and np.isfinite(gramian_after[number]).all()):
                objection = "a loss or gradient is not finite there"
            elif self._guard is not None:
                objection = self._guard.objection(
                    losses[number],
                    losses_after[number],
                    self._sizes[place].of(losses[number]),
                    float(before[number]),
                    float(after[number]),
                    PaperFormulation(),
                )
            self._counters[place].count_attempt(step, accepted=not objection)
            self._next[place] = step + self._counters[place].wait
            if not objection:
                adam.points[row] = landings[number]
                self._sigmas[row] = similarity([(deltas[number], gradients[row])])
            self.attempts.append(
                CostToyAttempt(
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


def _pair(point: Tensor) -> tuple[float, float]:
    first, second = point.tolist()
    return first, second
