"""IMTL-L: the loss part of impartial multi-task learning."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.registry import register
from equipoise.balance.vector_adam import learn_from_losses
from equipoise.errors import InputError
from equipoise.states import Maybe, Moments, Of

__all__ = ["IMTLL"]


@register(
    "imtl-l",
    summary="weights are learned scales: exp(s)·ℓ − s with s learned beside the model",
    paper="Liu et al., Towards Impartial Multi-task Learning, ICLR 2021",
    aliases=("imtll",),
    price="1 backward",
    promise="learns one scale per task; at rest the scaled losses are all 1, so a task's weight is 1 over its loss",
    serves="losses on different scales, when weights should follow their level slowly and not every batch",
    caveats="losses must be positive, else a weight grows without bound; slow at its default `lr`",
    adds_up_to="K at the start",
    checked="closed form, autograd",
)
class IMTLL(LossBalancer):
    """Minimises Σ_k exp(s_k) ℓ_k − s_k over the model and s together (Liu et al., 2021, section 3.2, with base e).

    The gradient with respect to s_k is exp(s_k) ℓ_k − 1, so s needs no backward pass; where it vanishes, all scaled losses
    are 1. In the paper s is learned by the model's own optimizer; here it has an Adam of its own, because the optimizer
    stays the user's. With s = −log σ² this is twice the objective of :class:`~equipoise.UW`, and Adam does
    not see the factor: at equal learning rates the weights are twice as large, and nothing else differs.

    For a loss that stays at 0 or below, the objective has no minimum in s_k, and its weight grows without bound.

    **Mind.** Losses must be positive. Otherwise a weight grows without bound, and no error is raised. It has a learning rate of
    its own, and is slow at the default. Its weights are twice those of ``uw`` at the same learning rate.

    Args:
        lr: of Adam on s.
        initial: log-scale that every task starts from; 0 weighs all by 1.

    Raises:
        InputError: the learning rate is negative, or ``initial`` not finite.

    Example:
        >>> IMTLL().weights(torch.tensor([2.0, 8.0]))
        tensor([1., 1.])
    """

    stateful: ClassVar = {"log_scales": Maybe(Of(("K",)), "memory"), "moments": Maybe(Moments((3, "K")), "memory")}
    depends_on_losses = False
    decides_purely = True

    def __init__(self, lr: float = 1e-3, initial: float = 0.0) -> None:
        if not lr >= 0:
            raise InputError(f"lr must be at least 0; got {lr}")
        if not math.isfinite(initial):
            raise InputError(f"initial must be finite; got {initial}")
        self.lr = lr
        self.initial = initial
        self.log_scales: Tensor | None = None
        self.moments: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """exp(s) of the tasks present."""
        observation.check_memory(self, self.log_scales)
        if self.log_scales is None:
            return torch.full((len(observation.present),), self.initial, dtype=torch.float64, device="cpu").exp()
        return observation.of_present(self.log_scales).exp()

    def update(self, observation: Observation) -> None:
        """One Adam step on the log-scales of the tasks present."""
        self.log_scales, self.moments = learn_from_losses(
            self.log_scales,
            self.moments,
            observation,
            lambda values, losses: values.exp() * losses - 1,
            initial=self.initial,
            lr=self.lr,
        )

    def __repr__(self) -> str:
        return f"IMTLL(lr={self.lr}, initial={self.initial})"
