"""Uncertainty weighting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.registry import register
from equipoise.balance.vector_adam import learn_from_losses
from equipoise.errors import InputError
from equipoise.states import Maybe, Moments, Of

__all__ = ["UW"]


@register(
    "uw",
    summary="weights are learned observation noises: ½·exp(−s)·ℓ + ½·s with s learned beside the model",
    paper="Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018",
    aliases=("uncertainty-weighting",),
    price="1 backward",
    promise="learns one noise level per task; at rest a task's weight is ½ over its loss",
    serves="likelihood losses: squared error, cross-entropy",
    caveats="losses must be positive, else a weight grows without bound; slow at its default `lr`",
    adds_up_to="K/2 at the start",
    checked="closed form",
)
class UW(LossBalancer):
    """Minimises Σ_k ½ exp(−s_k) ℓ_k + ½ s_k over the model and s together, s_k = log σ_k² being a learned log-variance.

    The gradient with respect to s_k is ½(1 − exp(−s_k) ℓ_k), so s needs no backward pass. In the paper s is learned by the
    model's own optimizer; here it has an Adam of its own, because the optimizer stays the user's. Losses should not be
    negative: for one that stays below 0 the objective has no minimum in s_k, and its weight grows without bound.

    **Mind.** Losses must be positive. Otherwise a weight grows without bound, and no error is raised. It has a learning rate of
    its own, and is slow at the default.

    Args:
        lr: of Adam on s.
        initial: log-variance that every task starts from; 0 weighs all by ½.

    Raises:
        InputError: the learning rate is negative.

    Example:
        >>> UW().weights(torch.tensor([2.0, 8.0]))
        tensor([0.5000, 0.5000])
    """

    stateful: ClassVar = {"log_variances": Maybe(Of(("K",)), "memory"), "moments": Maybe(Moments((3, "K")), "memory")}
    depends_on_losses = False

    def __init__(self, lr: float = 1e-3, initial: float = 0.0) -> None:
        if not lr >= 0:
            raise InputError(f"lr must be at least 0; got {lr}")
        self.lr = lr
        self.initial = initial
        self.log_variances: Tensor | None = None
        self.moments: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """½ exp(−s) of the tasks present."""
        observation.check_memory(self, self.log_variances)
        if self.log_variances is None:
            return torch.full((len(observation.present),), 0.5, device="cpu") * torch.tensor(-self.initial, device="cpu").exp()
        return 0.5 * (-observation.of_present(self.log_variances)).exp()

    def update(self, observation: Observation) -> None:
        """One Adam step on the log-variances of the tasks present."""
        self.log_variances, self.moments = learn_from_losses(
            self.log_variances,
            self.moments,
            observation,
            lambda values, losses: 0.5 * (1 - (-values).exp() * losses),
            initial=self.initial,
            lr=self.lr,
        )

    def __repr__(self) -> str:
        return f"UW(lr={self.lr}, initial={self.initial})"
