"""IGB: improvable gap balancing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.per_task import EpochBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of, Whole

__all__ = ["IGB"]


@register(
    "igb",
    summary="log losses, weighted by a softmax of each loss relative to its mean in an early epoch",
    paper="Dai, Fei and Lu, Improvable Gap Balancing for Multi-Task Learning, UAI 2023 (arXiv 2307.15429)",
    aliases=("igb-v1",),
    price="1 backward",
    promise="`si`, with more weight for tasks whose loss fell least since an early epoch",
    serves="losses on different scales that fall at different rates, over many epochs",
    caveats="losses must be positive; call `end_epoch()`, or it stays `si`",
    adds_up_to="K times a mean of 1/loss",
    checked="released code's formula, closed form",
)
class IGB(EpochBalancer):
    """Minimises Σ_k w_k log ℓ_k with w = K·softmax(ℓ/ℓ̄), so task k's loss weighs w_k/ℓ_k (IGBv1 of Dai et al., 2023).

    ℓ̄_k is the task's mean loss in one early epoch, which stands for the progress that may be hoped for; ℓ_k/ℓ̄_k is the gap
    that is left. Until that epoch is over w is 1, and the method is :class:`~equipoise.SI`. Epochs end where ``end_epoch()``
    is called, or every ``steps_per_epoch`` steps.

    The paper's text was not available; this follows its released code (github.com/YanqiDai/IGB4MTL). IGBv2, which learns the
    weights by soft actor-critic, is not here: the log-probability of an action in that code is that of a tanh of the normal
    draw, while its actions are a softmax, so what it optimises is not what it says.

    Args:
        base_epoch: the epoch that ℓ̄ is the mean of, counted from 0; the second one, as in the released code.
        steps_per_epoch: length of an epoch in steps; left out, ``mtl.end_epoch()`` (or the balancer's own) says when one
            is over.
        epsilon: added to the losses before the logarithm.

    Raises:
        InputError: an argument is negative, or an epoch has no steps.
        NonFiniteError: at a step, when a loss is negative: its logarithm does not exist.

    Example:
        >>> IGB(epsilon=0.0).weights(torch.tensor([2.0, 8.0]))
        tensor([0.5000, 0.1250])
    """

    stateful: ClassVar = {"base": Maybe(Of(("K",), nan=True, inf=True)), **EpochBalancer.epoch_state, "epochs": Whole()}
    decides_purely = True
    meanwhile = "its weights are still those of si"

    def __init__(self, base_epoch: int = 1, steps_per_epoch: int | None = None, epsilon: float = 1e-8) -> None:
        for name, value in (("base_epoch", base_epoch), ("epsilon", epsilon)):
            if not value >= 0:
                raise InputError(f"{name} must be at least 0; got {value}")
        super().__init__(steps_per_epoch)
        self.base_epoch = base_epoch
        self.epsilon = epsilon
        self.base: Tensor | None = None
        self.epochs = 0

    def decide(self, observation: Observation) -> Tensor:
        """w_k/(ℓ_k + ε) of the tasks present."""
        observation.check_memory(self, self.base)
        losses = observation.needed("losses").double()
        shifted = losses + self.epsilon
        slopes = torch.where(shifted > 0, shifted.reciprocal(), torch.nan)
        if self.base is None:
            return slopes
        base = observation.of_present(self.base.to(losses.device))
        # A task that the epoch never held, or whose loss was 0 there, counts as one that stands still.
        gaps = torch.where(base > 0, losses / base, 1.0).clamp(max=1e150)
        return len(losses) * torch.softmax(gaps, 0) * slopes

    def update(self, observation: Observation) -> None:
        """Adds the losses of a step to the epoch's, up to the one that counts."""
        if self.base is None:
            super().update(observation)

    def learn(self, means: Tensor, counts: Tensor) -> None:
        """Counts the epoch, and keeps the one that the losses are measured by."""
        if self.epochs >= self.base_epoch:
            self.base = means
        self.epochs += 1

    def __repr__(self) -> str:
        return f"IGB(base_epoch={self.base_epoch}, steps_per_epoch={self.steps_per_epoch})"
