"""BVFIM: a value-function-based interior-point method, for one upper objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.bilevel.problem import BilevelProblem
from equipoise.bilevel.value_function import Combination, ValueFunction, ValueFunctionSolver
from equipoise.errors import InputError

__all__ = ["BVFIM"]


class BVFIM(ValueFunctionSolver):
    """Lowers the mean upper objective with a logarithmic barrier on the constraint (Liu et al., 2021, BVFIM).

    Works on F(α, ω) + ½θ‖ω‖² − τ log s, with s = f(α, ω̃^T) + μ − f(α, ω) and ω̃^T from T gradient steps on f(α, ω) + ½μ‖ω‖².
    Its gradient is ∇F + θω + (τ/s)(∇f(α, ω) − ∇_α f(α, ω̃^T)). μ, θ and τ shrink by ``decay`` from step to step. The published
    s has ½μ‖ω̃^T‖² more: there, the regulariser counts in the value of the lower level, too. Here the same q̃ = f(α, ω) −
    f(α, ω̃^T) serves all methods, so that networks of many parameters do not widen the barrier by their norm.

    The published algorithm solves for ω by several steps of its own in every outer step; here ω and α take one step of
    the torch optimizer each, from where they are, so that all methods of this room share one interface and one price. Where
    ω is outside of the barrier or close to it (s below half of μ), the logarithm is continued by its tangent: a step
    that went too far is brought back instead of ending the run.

    Args:
        problem: what is solved; its objectives are averaged.
        optimizer: a torch optimizer, or several, that hold α and ω.
        barrier: τ of the first step.
        regularization: θ of the first step.
        margin: μ of the first step.
        decay: what the three are divided by from one step to the next, at least 1.
        lower: ``lower_steps``, ``lower_lr``, ``start`` and ``constraint_batches``, see
            :class:`~equipoise.bilevel.value_function.ValueFunction`; the lower level is the regularised one.

    Raises:
        InputError: an argument that cannot be used.
    """

    averages = True

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        barrier: float = 0.1,
        regularization: float = 0.001,
        margin: float = 0.1,
        decay: float = 1.001,
        **lower: Unpack[ValueFunction],
    ) -> None:
        super().__init__(problem, optimizer, **lower)
        for name, value in (("barrier", barrier), ("margin", margin)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be positive and finite; got {value}")
        if not 0 <= regularization < float("inf"):
            raise InputError(f"regularization must be finite and at least 0; got {regularization}")
        if not 1 <= decay < float("inf"):
            raise InputError(f"decay must be finite and at least 1; got {decay}")
        self.barrier = barrier
        self.regularization = regularization
        self.margin = margin
        self.decay = decay

    def _shrink(self) -> float:
        return float(self.decay**-self.steps)

    def _lower_decay(self) -> float:
        return self.margin * self._shrink()

    def _combine(self, gramian: NDArray[np.float64], gap: float) -> Combination:
        margin = self.margin * self._shrink()
        slack = max(margin - gap, 0.5 * margin)
        return Combination(np.ones(1), self.barrier * self._shrink() / slack)

    def _finish(self, leaves: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor in leaves[len(self.problem.upper_variables) :]:
                if tensor.grad is not None:
                    tensor.grad.add_(tensor, alpha=self.regularization * self._shrink())
