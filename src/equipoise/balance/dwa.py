"""Dynamic weight average."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.per_task import EpochBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of

__all__ = ["DWA"]


@register(
    "dwa",
    summary="more weight for tasks whose loss fell least from the last epoch but one to the last",
    paper="Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019",
    aliases=("dynamic-weight-average",),
    price="1 backward",
    promise="more weight for tasks whose loss fell least between the last two epochs",
    serves="many epochs, losses of one scale",
    caveats="the units matter as for `ls`; call `end_epoch()`, or weights stay 1; no weights before the third epoch",
    adds_up_to="the number of tasks present",
    checked="closed form",
)
class DWA(EpochBalancer):
    """Weighs task k by K·softmax(r/T)_k with r_k = ℓ̄_k(e−1)/ℓ̄_k(e−2), the ratio of its mean losses in the two epochs before.

    The weights are 1 until two epochs are over. Epochs end where ``end_epoch()`` is called, or every ``steps_per_epoch``
    steps.

    Args:
        temperature: T; the larger, the more even. 2 in the paper.
        steps_per_epoch: length of an epoch in steps; left out, ``mtl.end_epoch()`` (or the balancer's own) says when one
            is over.

    Raises:
        InputError: the temperature is not positive, or the epoch has no steps.
    """

    stateful: ClassVar = {
        **EpochBalancer.epoch_state,
        "last": Maybe(Of(("K",), nan=True, inf=True)),
        "before_last": Maybe(Of(("K",), nan=True, inf=True)),
    }
    depends_on_losses = False
    meanwhile = "its weights are still those of the last one"

    def __init__(self, temperature: float = 2.0, steps_per_epoch: int | None = None) -> None:
        if not temperature > 0:
            raise InputError(f"temperature must be positive; got {temperature}")
        super().__init__(steps_per_epoch)
        self.temperature = temperature
        self.last: Tensor | None = None
        self.before_last: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present, from the two epochs before; their sum is how many they are."""
        observation.check_memory(self, self.last)
        if self.last is None or self.before_last is None:
            return torch.ones(len(observation.present), device="cpu")
        ratios = observation.of_present(self.last / self.before_last)
        # A task that an epoch never held, or whose loss was 0, counts as one that stood still.
        ratios = torch.where(torch.isfinite(ratios), ratios, torch.ones_like(ratios))
        return len(observation.present) * torch.softmax(ratios / self.temperature, 0)

    def learn(self, means: Tensor, counts: Tensor) -> None:
        """The epoch becomes the last one; a task that it did not hold keeps what is known of it."""
        if self.last is not None:
            self.before_last, self.last = self.last, torch.where(counts > 0, means, self.last)
        else:
            self.last = means

    def __repr__(self) -> str:
        return f"DWA(temperature={self.temperature}, steps_per_epoch={self.steps_per_epoch})"
