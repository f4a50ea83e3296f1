"""Hypergradients of task weights from virtual lower steps that leave the model alone; exact and fast for one step.

After one virtual step ω_1 = ω − η Σ_j α_j ∇ℓ_j(ω), the hypergradient of F_i = ℓ_i(ω_1; validation) with respect to the free
vector a, α = softmax(a), is

    ∂F_i/∂a_k = −η Σ_j ∂α_j/∂a_k ⟨∇ℓ_j(ω), ∇F_i(ω_1)⟩,

which needs K gradients at ω and K at ω_1, and no second derivative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.bilevel.hypergradients import Hypergradients, Unrolled
from equipoise.bilevel.levels import Parts
from equipoise.bilevel.lower import check_answer, check_lower, check_upper
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.problem import Point
from equipoise.bilevel.rules import Descent
from equipoise.bilevel.weighting.problem import WeightProblem
from equipoise.engine.graph import origins
from equipoise.engine.reals import as_real, flat, shaped, size
from equipoise.errors import InputError
from equipoise.modes import without_autocast

__all__ = ["LookAhead", "one_step_hypergradients"]

# So many tasks' gradients at ω cost no more than one product with the second derivatives.
_FEW = 3


class LookAhead(MOML):
    """As MOML, on a :class:`WeightProblem`: moves the weights and leaves the model alone, by
    :func:`one_step_hypergradients` if ``lower_steps=1``, otherwise by unrolling.
    """

    problem: WeightProblem

    def __init__(self, problem: WeightProblem, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        super().__init__(problem, optimizer, keeps_lower=True, **options)

    def _hypergradients(self, batches: list[Parts], upper_parts: Parts) -> Hypergradients:
        one = self._one(batches, upper_parts) and not self.problem.raw
        rule = self.rule
        # Where one row of a weighted sum will do, a second derivative is cheaper than a gradient per task.
        summed = self.balancer.needs == "losses" and len(self.problem.objectives) > _FEW and self.steps > 0
        if not (one and isinstance(rule, Descent) and rule.linear and self.hypergradient == Unrolled()) or summed:
            return self._unrolled(batches, upper_parts)
        lr = rule.lr * rule.factor(0)
        return one_step_hypergradients(self.problem, self._lower_start(), batches[0][0], upper_parts[0], lr, step=self.steps)

    def _one(self, batches: list[Parts], upper_parts: Parts) -> bool:
        """Whether there is one lower step, on one batch, in one process and without a gradient scaler."""
        return self.lower_steps == 1 and len(batches[0]) == 1 == len(upper_parts) and self.levels.plain


def one_step_hypergradients(
    problem: WeightProblem, start: Point, batch: Any, upper_batch: Any, lr: float, *, step: int = 0
) -> Hypergradients:
    """What :func:`~equipoise.bilevel.hypergradients` gives for one lower step, by inner products of first derivatives.

    Memory: K + 1 gradients of the model. ``start`` stays as it is, but for the buffers; a batch may lack tasks.

    Raises:
        InputError: a loss does not depend on the model.
        NonFiniteError: a value is not finite; names level and objective.
    """
    weights = torch.softmax(start.upper[0].detach(), 0)
    leaves = [value.detach().requires_grad_() for value in start.lower]
    losses = problem.losses_at(Point(start.upper, leaves, start.buffers), batch)
    positions = problem.objective.tasks.positions(losses)
    present = weights[positions]
    real = as_real(leaves[0].detach())
    lower = (present.to(real) * torch.stack([loss.detach().to(real) for loss in losses.values()])).sum()
    check_lower([lower], step)
    gradients = real.new_empty(len(losses), sum(size(leaf) for leaf in leaves))
    for row, found in zip(gradients, _rows(list(losses.values()), list(losses), leaves, "training"), strict=True):
        row.copy_(found)
    with without_autocast(gradients.device):
        mixed = present.to(gradients) @ gradients
    moved = [
        (leaf.detach() - lr * shaped(leaf, piece).to(leaf)).requires_grad_()
        for leaf, piece in zip(leaves, mixed.split([size(leaf) for leaf in leaves]), strict=True)
    ]
    check_answer(moved, problem.lower_variables.names, 1, step)
    # On copies of the buffers: statistics are those of the training batches.
    copies = {name: buffer.clone() for name, buffer in start.buffers.items()}
    objectives = problem.objectives_at(Point(start.upper, moved, copies), upper_batch)
    names = problem.objectives
    values = check_upper(torch.stack([value.detach() for value in objectives]), names, step)
    # ⟨∇ℓ_j(ω), ∇F_i(ω_1)⟩, row by row, so that the gradients at ω_1 are never held together.
    with without_autocast(gradients.device):
        products = torch.stack([gradients @ row for row in _rows(objectives, names, moved, "validation")])
        jacobian = -torch.outer(present, weights)  # ∂α_j/∂a_k = α_j (δ_jk − α_k)
        jacobian[torch.arange(len(positions), device="cpu"), positions] += present
        rows = -lr * products.to(jacobian) @ jacobian
    return Hypergradients(rows, values, Point(start.upper, [value.detach() for value in moved], start.buffers), float(lower))


def _rows(losses: Sequence[Tensor], names: Sequence[str], leaves: Sequence[Tensor], data: str) -> Iterator[Tensor]:
    """The flat gradient ``[P]`` of each loss, one after the other."""
    for position, (name, loss) in enumerate(zip(names, losses, strict=True)):
        if not loss.requires_grad:
            raise InputError(
                f'the {data} loss of task "{name}" depends on none of the model\'s parameters that require gradients; it was '
                f"detached, or computed under torch.no_grad()"
            )
        found = torch.autograd.grad(
            origins([loss]), leaves, [torch.ones_like(loss)], retain_graph=position < len(losses) - 1, allow_unused=True
        )
        yield torch.cat(
            [flat(torch.zeros_like(leaf) if entry is None else entry) for entry, leaf in zip(found, leaves, strict=True)]
        )
