"""Pareto MTL: one sector of the losses' space per preference."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import Observation
from equipoise.balance.chosen_point import ChosenPointBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import minimum_norm_point, read_array
from equipoise.states import Whole

__all__ = ["PMTL"]

# A lattice of more rays than this is taken coarser.
_MOST_RAYS = 1000


@register(
    "pmtl",
    summary="MGDA within the sector of losses that are nearer to one's ray than to others",
    paper="Lin et al., Pareto Multi-Task Learning, NeurIPS 2019",
    aliases=("pareto-mtl",),
    price="K backward",
    promise="ends on the front within the sector of the preference, somewhere in it; on concave fronts too",
    serves="a part of the front; several runs cover it",
    caveats="a sector, not a point: where in it depends on the start; no task's loss falls while it looks for the sector",
    adds_up_to="between 0 and 2",
    checked="released code's numbers, minimum-norm conditions",
    preference="ray: losses nearer to p than to the other rays",
)
class PMTL(ChosenPointBalancer):
    """Minimises max over k and active j of ⟨g_k, d⟩, ⟨∇G_j, d⟩ plus ½‖d‖², G_j = (u_j − p̂)ᵀℓ ≤ 0 (Lin et al., 2019, eq. 7, 10).

    u_j are the unit vectors along the other rays, p̂ that along the preference, and constraints with G_j ≥ −ε‖ℓ‖ are active (the
    paper's ε has the losses' units, eq. 11). That is the minimum-norm point of the task gradients and the active ∇G_j. First
    it looks for a point of the sector, by active constraints alone (eq. 9), for ``warmup_steps`` steps at most.
    Released code ends the search after a fifth of the training, and its minimum-norm solver stays a thousandth off the ends.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; only ratios matter, equal if left out.
        rays: how many others there are between two axes: all weights in steps of 1/(``rays`` − 1), coarser ones from a thousand
            rays on. The paper spreads those of two tasks evenly by angle.
        others: the others one by one, instead; each has one number per task, in order.
        tolerance: ε ≥ 0.
        warmup_steps: at most so many steps look for the sector.

    Raises:
        InputError: an option is out of range, or preferences or rays do not fit the tasks.

    Example:
        >>> PMTL().weights([[4.0, 0.0], [0.0, 1.0]], [1.0, 1.0]).round(decimals=6).tolist()
        [0.2, 0.8]
    """

    stateful: ClassVar = {"steps": Whole()}
    decides_purely = True

    def __init__(
        self,
        preference: Sequence[float] | Mapping[str, float] | None = None,
        rays: int = 5,
        others: Sequence[Sequence[float]] | None = None,
        tolerance: float = 0.0,
        warmup_steps: int = 100,
    ) -> None:
        if rays < 2:
            raise InputError(f"rays must be at least 2; got {rays}")
        if not 0 <= tolerance < float("inf"):
            raise InputError(f"tolerance must be finite and at least 0; got {tolerance}")
        if warmup_steps < 0:
            raise InputError(f"warmup_steps must be at least 0; got {warmup_steps}")
        super().__init__(preference)
        self.rays = rays
        self.others = None if others is None else _checked(others)
        self.tolerance = float(tolerance)
        self.warmup_steps = warmup_steps
        self.steps = 0

    def at(
        self, losses: NDArray[np.float64], gramian: NDArray[np.float64], preference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.minimum_norm_point`, of the task gradients and those of the active constraints."""
        active = self._active(losses, preference, *self._among(len(losses)))
        searching = self.steps < self.warmup_steps and len(active) > 0
        mixed = active if searching else np.vstack([np.eye(len(losses)), active])
        weights: NDArray[np.float64] = minimum_norm_point(mixed @ gramian @ mixed.T) @ mixed
        return weights

    def update(self, observation: Observation) -> None:
        """Counts the steps that look for the sector; they are over as soon as it is found."""
        if self.steps < self.warmup_steps:
            losses = observation.needed("losses").double().cpu().numpy()
            preference = np.array(self.shares(observation.tasks, observation.present))
            found = len(self._active(losses, preference, observation.tasks, observation.present)) == 0
            self.steps = self.warmup_steps if found else self.steps + 1

    def _active(
        self, losses: NDArray[np.float64], preference: NDArray[np.float64], tasks: tuple[str, ...], present: Sequence[int]
    ) -> NDArray[np.float64]:
        """What active constraints are as combinations of the losses, ``[j, k]``."""
        if self.others is None:
            rays = _lattice(len(losses), self.rays - 1)
        else:
            total = len(tasks) or len(losses)
            if self.others.shape[1] != total:
                raise InputError(f"others has rays of {self.others.shape[1]} numbers for {total} tasks")
            rays = self.others[:, list(present)]
            rays = rays[rays.any(axis=1)]
            rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        apart = rays - preference / np.linalg.norm(preference)
        apart = apart[np.linalg.norm(apart, axis=1) > 1e-9]  # but for the preference itself
        chosen: NDArray[np.float64] = apart[apart @ losses >= -self.tolerance * np.linalg.norm(losses)]
        return chosen

    def _options(self) -> list[str]:
        rays = f"rays={self.rays}" if self.others is None else f"others={self.others.tolist()}"
        return [*self._named(), rays, f"tolerance={self.tolerance}", f"warmup_steps={self.warmup_steps}"]


def _checked(others: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    rays = read_array(others, "others")
    if rays.ndim != 2 or not np.isfinite(rays).all() or (rays < 0).any() or not rays.any(axis=1).all():
        raise InputError(f"others are rays [j, K] of finite numbers from 0 on, none all 0; got {others}")
    return rays


@functools.cache
def _lattice(size: int, steps: int) -> NDArray[np.float64]:
    """Unit vectors along all weights in steps of 1/``steps``, or in fewer steps where there are too many."""
    while steps > 1 and math.comb(size + steps - 1, steps) > _MOST_RAYS:
        steps -= 1
    found = np.zeros((math.comb(size + steps - 1, steps), size))
    for row, picked in zip(found, itertools.combinations_with_replacement(range(size), steps), strict=True):
        np.add.at(row, list(picked), 1.0)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found
