"""GradNorm: gradient normalisation."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.registry import register
from equipoise.balance.vector_adam import vector_adam, vector_adam_state
from equipoise.errors import InputError
from equipoise.states import Maybe, Moments, Of

__all__ = ["GradNorm"]


@register(
    "gradnorm",
    summary="weights learned so that weighted gradient norms agree, larger for tasks that train slowly",
    paper="Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing, ICML 2018",
    price="K backward",
    promise="at rest, weighted gradient norms in proportion to (ℓ/ℓ at the start)^`alpha`",
    serves="tasks that train at very different rates, when all should train at one",
    caveats="losses must not be negative; blind to conflicts; stakes much on the first batch's losses",
    adds_up_to="K",
    checked="closed form, autograd",
)
class GradNorm(GramianBalancer):
    """Learns w by descending Σ_k | w_k‖g_k‖ − Ḡ r_k^α |, the target Ḡ r_k^α held fixed (Chen et al., 2018, eq. 2).

    Ḡ is the mean of the w_k‖g_k‖ and r_k the relative inverse training rate, (ℓ_k/ℓ_k at the start) over the mean of these
    ratios. The gradient with respect to w_k is ±‖g_k‖, so nothing is differentiated twice. As in Algorithm 1, a step is taken
    with the weights it found, then w moves and is scaled to sum K. Starts from w = 1 and the first losses seen.

    Where this departs from the paper:

    - the norms there are of the last shared layer alone, here of all shared parameters; ``shared=`` of a step narrows them,
      and the balanced gradients with them, and ``features=`` takes those of a module's output;
    - w has an Adam of its own, because the optimizer stays the user's. Its step does not depend on the units of the norms;
    - a weight that a step would take below 0 becomes 0, from where it is bound to rise again;
    - task-specific parameters get their own task's gradient with weight 1, as everywhere where gradients are balanced.

    Tasks that a batch lacks keep their weight, and those present keep their sum.

    **Mind.** Losses must not be negative. It looks at norms, not at conflicts. It depends much on the first batch's losses.
    The gradient norms of one step are noisy. It has a learning rate of its own.

    Args:
        alpha: strength of the pull towards a common rate; 0 makes the norms equal. 1.5 as the paper uses on NYUv2.
        lr: of Adam on w; 0.025 in the paper.
        epsilon: added to the losses before ratios are taken.

    Raises:
        InputError: an argument is negative or not finite.
        NonFiniteError: at a step, when a loss is negative.

    Example:
        >>> GradNorm().weights(torch.eye(2))
        tensor([1., 1.])
    """

    stateful: ClassVar = {
        "task_weights": Maybe(Of(("K",), least=0, cpu=True), "memory"),
        "first_losses": Maybe(Of(("K",), nan=True, inf=True, cpu=True), "memory"),
        "moments": Maybe(Moments((3, "K"), cpu=True), "memory"),
    }
    decides_purely = True

    def __init__(self, alpha: float = 1.5, lr: float = 0.025, epsilon: float = 1e-8) -> None:
        for name, value in (("alpha", alpha), ("lr", lr), ("epsilon", epsilon)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        self.alpha = alpha
        self.lr = lr
        self.epsilon = epsilon
        self.task_weights: Tensor | None = None
        self.first_losses: Tensor | None = None
        self.moments: Tensor | None = None

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """The present weights: they come from the steps before, not from this Gramian."""
        if self.task_weights is None:
            return np.ones(len(gramian))
        if len(gramian) != len(self.task_weights):
            raise InputError(f"this GradNorm has learned from {len(self.task_weights)} tasks; the Gramian has {len(gramian)}")
        return self.task_weights.numpy().copy()

    def decide(self, observation: Observation) -> Tensor:
        """The present weights of the tasks present."""
        observation.check_memory(self, self.task_weights)
        weights = torch.ones(len(observation.present), dtype=torch.float64, device="cpu")
        if self.task_weights is not None:
            weights = observation.of_present(self.task_weights)
        if observation.losses is not None:
            losses = observation.losses.detach().to("cpu", torch.float64)
            weights = torch.where(losses + self.epsilon >= 0, weights, torch.nan)
        return weights

    def update(self, observation: Observation) -> None:
        """One Adam step on the weights of the tasks present."""
        losses = observation.needed("losses").detach().to("cpu", torch.float64) + self.epsilon
        norms = observation.needed("gramian").diagonal().clamp(min=0).sqrt()
        if self.task_weights is None or self.first_losses is None or self.moments is None:
            self.task_weights = torch.ones(len(observation.tasks), dtype=torch.float64, device="cpu")
            self.first_losses = torch.full_like(self.task_weights, torch.nan)
            self.moments = vector_adam_state(self.task_weights)
        entries = torch.tensor(observation.present, device="cpu")
        first = self.first_losses[entries]
        first = torch.where(torch.isnan(first), losses, first)
        self.first_losses = self.first_losses.index_copy(0, entries, first)
        weights = self.task_weights[entries]
        # A loss that was 0 at the start has no ratio; it counts as one that stands still.
        ratios = torch.where(first > 0, losses / first, 1.0).clamp(max=1e150)
        mean = ratios.mean()
        rates = ratios / mean if mean > 0 else torch.ones_like(ratios)
        weighted = weights * norms
        gradient = (weighted - weighted.mean() * rates**self.alpha).sign() * norms
        moved, self.moments = vector_adam(self.task_weights, gradient, self.moments, entries, lr=self.lr)
        positive = moved[entries].clamp(min=0)
        total = positive.sum()
        # At a huge learning rate all may have met 0.
        positive = positive * (weights.sum() / total) if total > 0 else weights
        self.task_weights = moved.index_copy(0, entries, positive)

    def __repr__(self) -> str:
        return f"GradNorm(alpha={self.alpha}, lr={self.lr})"
