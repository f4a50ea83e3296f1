"""DB-MTL: dual balancing of losses and gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.per_task import RowsBalancer, mixed_row, move_rows
from equipoise.balance.registry import register
from equipoise.errors import InputError, NonFiniteError
from equipoise.states import Listed, Maybe, Of, Text, Together, Whole

__all__ = ["DBMTL"]


@register(
    "db-mtl",
    summary="log losses, whose averaged gradients are all scaled to the norm of the largest and added up",
    paper="Lin et al., Dual-Balancing for Multi-Task Learning, 2023 (arXiv 2308.12029)",
    aliases=("dbmtl",),
    price="K backward, memory for K more gradients",
    promise="every task pulls equally hard; neither the units of a loss nor the noise of one batch decide",
    serves="losses on very different scales that a single weight does not tame",
    caveats="losses must be positive; blind to conflicts; a converged task pulls as hard as any",
    adds_up_to="no weights: the averages of K log-loss gradients, each as long as the longest",
    checked="reference implementation, equations, autograd",
)
class DBMTL(RowsBalancer):
    """Adds up averaged gradients of log losses, each scaled to the largest norm among them (Lin et al., 2023, Algorithm 1).

    With ĝ_k ← β_t ĝ_k + (1 − β_t) ∇log(ℓ_k + ε), ĝ starting from 0, the direction is max_j ‖ĝ_j‖ · Σ_k ĝ_k/‖ĝ_k‖, and
    β_t = β/t^σ in step t = 1, 2, …. A task whose average is 0 adds nothing.

    The loss part by itself, the sum of log losses, is what :class:`~equipoise.SI` (``si``) minimises, with the
    same ε, at the price of one backward pass; ``log_losses=False`` leaves the gradient part by itself. Gradients are
    balanced over the shared parameters; task-specific ones get their own loss's gradient with weight 1, as everywhere where
    gradients are balanced, while the log losses of the paper would divide theirs by the loss.

    Memory: one row of the shared parameters' length per task, and one more during the step. With ``beta=0`` none is kept.
    Tasks that a batch lacks keep their average and add nothing to the step. Averages start from 0 for parameters that become
    shared later (a layer that is unfrozen); those of the others go on.

    **Mind.** Losses must be positive. It looks at norms, not at conflicts. A task near its optimum, whose gradient is noise,
    pulls as hard as any other. The average lags behind by 1/(1 − ``beta``) steps.

    Args:
        beta: β, below 1; 0.9 as in released code. 0 takes each batch's gradients as they are.
        beta_sigma: σ, how fast β fades; 0 keeps it.
        log_losses: take logarithms of the losses first.
        epsilon: ε, added to the losses before the logarithm.

    Raises:
        InputError: an argument is out of range.
        NonFiniteError: at a step with ``log_losses``, when a loss is negative.

    Example:
        >>> balancer = DBMTL(beta=0.0, log_losses=False)
        >>> balancer.direction(torch.tensor([[3.0, 0.0], [0.0, 0.1]]))
        tensor([3., 3.])
    """

    stateful: ClassVar = {
        "averages": Maybe(Of(("K", "P"), dtype=None)),
        "layout": Maybe(Listed(Together((Text(), Whole())))),
        "steps": Whole(),
    }

    def __init__(self, beta: float = 0.9, beta_sigma: float = 0.0, log_losses: bool = True, epsilon: float = 1e-8) -> None:
        if not 0 <= beta < 1:
            raise InputError(f"beta must be at least 0 and below 1; got {beta}")
        for name, value in (("beta_sigma", beta_sigma), ("epsilon", epsilon)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        self.beta = beta
        self.beta_sigma = beta_sigma
        self.log_losses = log_losses
        self.epsilon = epsilon
        self.averages: Tensor | None = None
        self.steps = 0
        self._held: tuple[Tensor, Tensor, Tensor | None] | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]`` of the tasks present."""
        gradients = observation.needed("gradients")
        averages = self._fitted(self.averages, observation)
        take = (1 - self._beta()) * self._slopes(observation, gradients)
        self._held = (gradients, take, averages)
        spare = torch.empty_like(gradients[0])
        direction = torch.zeros_like(spare)
        norms = []
        for position, gradient, share in zip(observation.present, gradients, take.to(gradients).unbind(), strict=True):
            past = None if averages is None else averages[position]
            average = mixed_row(past, self._beta(), gradient, share, spare)
            norm = _norm(average)
            norms.append(norm)
            direction.addcmul_(average, torch.where(norm > 0, 1 / norm, 0.0).to(average))
        lengths = torch.stack(norms)
        longest, range_ = lengths.max(), torch.finfo(direction.dtype).max
        if bool((longest < range_) & (1 / torch.where(lengths > 0, lengths, 1.0) < range_).all()):
            return direction.mul_(longest.to(direction))
        # The inverse of a norm, or the norm itself, is beyond the gradients' own precision: once more, more carefully.
        wide = torch.zeros_like(direction, dtype=torch.float64)
        for position, gradient, share, norm in zip(
            observation.present, gradients, take.to(gradients).unbind(), norms, strict=True
        ):
            past = None if averages is None else averages[position]
            average = mixed_row(past, self._beta(), gradient, share, spare)
            largest = average.abs().max().double()
            if norm > 0:
                wide += average.double() / largest / (norm / largest)
        return (wide * longest).to(direction)

    def update(self, observation: Observation) -> None:
        """Moves the averages of the tasks present."""
        if self._held is None:
            return
        gradients, take, averages = self._held
        self._held = None
        if self.beta > 0:
            if averages is None:
                averages = gradients.new_zeros(len(observation.tasks), gradients.shape[1])
            self.averages, self.layout = averages, observation.layout
            move_rows(self.averages, observation.present, self._beta(), gradients, take)
        self.steps += 1

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; averages are there from the first step on, unless none are kept."""
        read = super().read_state(state, sizes)
        if (read["averages"] is None) != (read["steps"] == 0 or self.beta == 0):
            raise InputError(f"the state of DBMTL does not fit together: averages with steps={read['steps']}, beta={self.beta}")
        return read

    def _beta(self) -> float:
        return float(self.beta / (self.steps + 1) ** self.beta_sigma)

    def _slopes(self, observation: Observation, gradients: Tensor) -> Tensor:
        """What turns gradients of losses into gradients of their logarithms, ``[k]``."""
        if not self.log_losses:
            return torch.ones(len(gradients), dtype=torch.float64, device=gradients.device)
        shifted = observation.needed("losses").to(gradients.device, torch.float64) + self.epsilon
        bad = [position for position, loss in zip(observation.present, shifted.tolist(), strict=True) if loss <= 0]
        if bad:
            names = tuple(observation.tasks[position] for position in bad)
            raise NonFiniteError(
                f"the logarithm of the loss of task {', '.join(names)} does not exist in step {observation.step}: DB-MTL needs "
                f"positive losses, or log_losses=False; the step was not taken and nothing has changed",
                tasks=names,
                step=observation.step,
                what="loss",
            )
        return shifted.reciprocal()

    def __repr__(self) -> str:
        return f"DBMTL(beta={self.beta}, beta_sigma={self.beta_sigma}, log_losses={self.log_losses})"


def _norm(row: Tensor) -> Tensor:
    """In float64, for the squares of large and small gradients leave float32's range; those of float64's own are scaled."""
    norm: Tensor = torch.linalg.vector_norm(row, dtype=torch.float64)
    if row.dtype == torch.float64 and not 1e-140 < norm < 1e140:
        largest = row.abs().max()
        norm = torch.where(largest > 0, largest * torch.linalg.vector_norm(row / torch.where(largest > 0, largest, 1.0)), norm)
    return norm
