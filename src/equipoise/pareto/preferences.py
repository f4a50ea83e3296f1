"""Preferences: where on the front a model is wanted, drawn for training and laid out for evaluation."""

from __future__ import annotations

import copy
import math
from itertools import combinations, pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.states import Generator, Listed, Whole, read_state

__all__ = ["Draw", "Preferences", "grid"]

Draw = Literal["dirichlet", "schedule"]


def grid(count: int, tasks: int, *, inset: float = 0.0) -> Tensor:
    """Evenly spaced preferences ``[n, K]`` on the simplex (Das and Dennis, 1998), in float64.

    For two tasks ``n`` is the count; for more it is the largest lattice that has no more points, and at least the corners.

    Args:
        count: about how many, at least 2.
        tasks: K, at least 2.
        inset: how far the corners are moved towards the centre: ``(1 − inset) p + inset/K``.

    Raises:
        InputError: fewer than 2 of either, or an inset outside [0, 1).

    Example:
        >>> grid(3, 2).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
        >>> len(grid(10, 3))
        10
    """
    for name, number in (("count", count), ("tasks", tasks)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 2:
            raise InputError(f"{name} is {number}; a front needs at least 2")
    if not 0 <= inset < 1:
        raise InputError(f"inset is {inset}; it must be from 0 on and below 1")
    parts = 1
    while math.comb(parts + tasks, tasks - 1) <= count:
        parts += 1
    rows = []
    for bars in combinations(range(parts + tasks - 1), tasks - 1):
        edges = (-1, *bars, parts + tasks - 1)
        rows.append([right - left - 1 for left, right in pairwise(edges)])
    found = torch.tensor(rows[::-1], dtype=torch.float64, device="cpu") / parts
    return (1 - inset) * found + inset / tasks


class Preferences:
    """Draws one preference per step of training.

    ``"dirichlet"`` draws from Dirichlet(α, …, α): α = 1 is uniform on the simplex, a smaller α (0.2 in PHN's released code)
    prefers the corners, a larger one (1.2 in COSMOS's) the centre. ``"schedule"`` takes evenly spaced preferences in turn, each
    raised to the power ``sharpness`` · t and brought back to the simplex, where t goes from 0 to 1 over ``steps``: at first all
    tasks count alike, at the end nearly one alone (PaLoRA, Dimitriadis et al., ICLR 2025; released code: sharpness 5, corners
    moved in by 0.01, several preferences per step; here they come one per step, in an order drawn anew for each turn).

    Args:
        tasks: K, at least 2.
        draw: ``"dirichlet"`` or ``"schedule"``.
        alpha: α of the Dirichlet distribution.
        count: how many preferences a turn of the schedule has, about.
        sharpness: the schedule's exponent at its end.
        steps: of training, which the schedule needs to know; after them t stays 1.
        seed: of the generator.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> preferences = Preferences(3, seed=0)
        >>> drawn = preferences.draw()
        >>> drawn.shape, round(float(drawn.sum()), 12)
        (torch.Size([3]), 1.0)
    """

    def __init__(
        self,
        tasks: int,
        draw: Draw = "dirichlet",
        *,
        alpha: float = 1.0,
        count: int = 5,
        sharpness: float = 5.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        if draw not in get_args(Draw):
            raise InputError(f'draw must be "dirichlet" or "schedule"; got "{draw}"')
        if not 0 < alpha < math.inf:
            raise InputError(f"alpha must be positive and finite; got {alpha}")
        if not 0 <= sharpness < math.inf:
            raise InputError(f"sharpness must be finite and at least 0; got {sharpness}")
        if draw == "schedule" and (steps is None or steps < 1):
            raise InputError(f"a schedule needs the number of training steps, at least 1; got steps={steps}")
        self.kind, self.alpha, self.sharpness, self.steps = draw, alpha, sharpness, steps
        self.lattice = grid(count, tasks, inset=0.02)
        self.tasks = tasks
        self.seed = seed
        self.generator = np.random.default_rng(seed)
        self.drawn = 0
        self._order: list[int] = []

    def draw(self) -> Tensor:
        """The next preference, ``[K]`` in float64, at least 0, with sum 1."""
        if self.kind == "dirichlet":
            # For small α all of the gammas behind the draw may vanish; one task alone is what is meant then.
            row = torch.from_numpy(self.generator.dirichlet([self.alpha] * self.tasks))
            if not bool(torch.isfinite(row).all()):
                row = torch.eye(self.tasks, dtype=torch.float64, device="cpu")[int(self.generator.integers(self.tasks))]
        else:
            assert self.steps is not None
            place = self.drawn % len(self.lattice)
            if place == 0:
                self._order = self.generator.permutation(len(self.lattice)).tolist()
            row = self.lattice[self._order[place]] ** (self.sharpness * min(1.0, self.drawn / self.steps))
            row = row / row.sum()
        self.drawn += 1
        return row

    def state_dict(self) -> dict[str, Any]:
        """What decides which preferences come next; plain numbers and lists."""
        return {"generator": copy.deepcopy(self.generator.bit_generator.state), "drawn": self.drawn, "order": list(self._order)}

    def load_state_dict(self, state: Any) -> None:
        """Goes on from a saved state.

        Raises:
            InputError: it is no such state.
        """
        read = self.read_state(state)
        self.generator.bit_generator.state = read["generator"]
        self.drawn, self._order = read["drawn"], list(read["order"])

    def read_state(self, state: Any) -> dict[str, Any]:
        """A state in its normal form; changes nothing. Raises InputError: it is no such state."""
        kinds = {"generator": Generator(self.generator.bit_generator), "drawn": Whole(), "order": Listed(Whole())}
        read = read_state("a Preferences", state, kinds)
        if read["order"] and sorted(read["order"]) != list(range(len(self.lattice))):
            raise InputError("the state of a Preferences is of a schedule with another number of preferences")
        return read

    def __repr__(self) -> str:
        if self.kind == "dirichlet":
            return f"Preferences({self.tasks}, alpha={self.alpha:g}, seed={self.seed})"
        return f'Preferences({self.tasks}, "schedule", count={len(self.lattice)}, steps={self.steps}, seed={self.seed})'
