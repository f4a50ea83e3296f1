"""The update that minimises both levels separately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.balance import Balancer
from equipoise.bilevel.base import check_upper
from equipoise.bilevel.hypergradients import Hypergradients
from equipoise.bilevel.lower import check_lower, lower_gradients
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.problem import BilevelProblem
from equipoise.errors import InputError

__all__ = ["AlternatingUpdate"]


class AlternatingUpdate(MOML):
    """α steps along a balancer's combination of ∂F_i/∂α at the present ω, ω along −∂f/∂ω (thesis, end of section 3.8.3).

    It is MOML with T = 1 in which the answer ω counts as a constant when F is differentiated, and ω moves by a torch optimizer.
    SAC needs both. Its policy learns by Adam, while MOML's lower steps are plain gradient steps; and its target is a constant,
    so F has no gradient with respect to ω: differentiated through the policy, a critic could lower its error by leading the
    policy to where targets are easily met instead of predicting returns. Both gradients are taken at the same point.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, that hold α and ω.
        balancer: as in :class:`equipoise.bilevel.MOML`.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> alpha, omega = torch.tensor(0.0), torch.tensor([0.0, 3.0])
        >>> problem = BilevelProblem(
        ...     lower=lambda alpha, omega, batch: (omega - alpha).square().sum(),
        ...     upper=lambda alpha, omega, batch: {"one": (alpha - 1).square(), "two": (alpha - 2).square()},
        ...     variables=(alpha, omega),
        ... )
        >>> solver = AlternatingUpdate(problem, torch.optim.SGD([alpha, omega], 0.1))
        >>> for _ in range(50):
        ...     values = solver.step()
        >>> bool(0.99 <= alpha <= 2), bool((omega - alpha).abs().max() < 0.1)
        (True, True)
    """

    moves_both = True

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        balancer: Balancer | str | Any = None,
    ) -> None:
        # One lower batch a step; the step size is the optimizer's.
        super().__init__(problem, optimizer, lower_steps=1, lower_step_size=1.0, balancer=balancer)

    def _hypergradients(self, batches: list[Any], upper_batch: Any) -> Hypergradients:
        here = self.problem.here()
        objectives = self.problem.objectives_at(here, upper_batch)
        names = self.problem.objectives
        values = check_upper(objectives, names, self.steps)
        rows = []
        for position, (name, objective) in enumerate(zip(names, objectives, strict=True)):
            found: Sequence[Tensor | None] = ()
            if objective.requires_grad:
                retain = position < len(names) - 1
                found = torch.autograd.grad(objective, here.upper, retain_graph=retain, allow_unused=True)
            if all(gradient is None for gradient in found):
                raise InputError(
                    f'upper(α, ω, batch): the objective "{name}" does not depend on the upper-level variables; the alternating '
                    f"update does not follow the dependence through ω, which MOML does"
                )
            filled = [
                torch.zeros_like(tensor) if gradient is None else gradient
                for gradient, tensor in zip(found, here.upper, strict=True)
            ]
            rows.append(torch.cat([gradient.reshape(-1) for gradient in filled]))
        value = self.problem.lower_at(here, batches[0])
        check_lower([value.detach()], self.steps)
        for tensor, gradient in zip(here.lower, lower_gradients(self.problem, value, here.lower), strict=True):
            tensor.grad = gradient
        # The solution is where the optimizer leads to: the variables themselves.
        return Hypergradients(torch.stack(rows), values, here, float(value.detach()))
