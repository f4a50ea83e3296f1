"""BOME: bilevel optimisation made easy, for one upper objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.bilevel.problem import BilevelProblem
from equipoise.bilevel.value_function import Combination, ValueFunction, ValueFunctionSolver
from equipoise.errors import InputError

__all__ = ["BOME"]

Barrier = Literal["gradient", "value"]


class BOME(ValueFunctionSolver):
    """Lowers the mean upper objective while the constraint q̃ keeps falling (Liu et al., 2022, BOME, eq. 6 and 7).

    The direction is −(∇F + ν ∇q̃) with F = mean of the F_i and ν = max(0, (φ − ⟨∇F, ∇q̃⟩)/‖∇q̃‖²). φ is ρ‖∇q̃‖², or
    ρ q̃ with ``barrier="value"``.

    Args:
        problem: what is solved; its objectives are averaged.
        optimizer: a torch optimizer, or several, that hold α and ω.
        rho: the paper's η, how fast the constraint is to fall.
        barrier: what φ is measured in.
        lower: ``lower_steps``, ``lower_lr``, ``start`` and ``constraint_batches``, see
            :class:`~equipoise.bilevel.value_function.ValueFunction`.

    Raises:
        InputError: an argument that cannot be used.
    """

    averages = True

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        rho: float = 0.5,
        barrier: Barrier = "gradient",
        **lower: Unpack[ValueFunction],
    ) -> None:
        super().__init__(problem, optimizer, **lower)
        if not 0 <= rho < float("inf"):
            raise InputError(f"rho must be finite and at least 0; got {rho}")
        if barrier not in get_args(Barrier):
            raise InputError(f'barrier must be "gradient" or "value"; got "{barrier}"')
        self.rho = rho
        self.barrier = barrier

    def _combine(self, gramian: NDArray[np.float64], gap: float) -> Combination:
        square = float(gramian[-1, -1])
        phi = self.rho * (square if self.barrier == "gradient" else max(gap, 0.0))
        multiplier = max(0.0, (phi - float(gramian[0, -1])) / square) if square > 0.0 else 0.0
        return Combination(np.ones(1), multiplier)
