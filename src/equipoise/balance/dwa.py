"""Dynamic weight average."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.per_task import add_losses, remind_of_epochs
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of, Whole

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
class DWA(LossBalancer):
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
        "sums": Maybe(Of(("K",), inf=True), "epoch"),
        "counts": Maybe(Of(("K",), least=0), "epoch"),
        "last": Maybe(Of(("K",), nan=True, inf=True)),
        "before_last": Maybe(Of(("K",), nan=True, inf=True)),
        "steps": Whole(),
    }
    depends_on_losses = False

    def __init__(self, temperature: float = 2.0, steps_per_epoch: int | None = None) -> None:
        if not temperature > 0:
            raise InputError(f"temperature must be positive; got {temperature}")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch must be at least 1; got {steps_per_epoch}")
        self.temperature = temperature
        self.steps_per_epoch = steps_per_epoch
        self.sums: Tensor | None = None
        self.counts: Tensor | None = None
        self.last: Tensor | None = None
        self.before_last: Tensor | None = None
        self.steps = 0

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present, from the two epochs before; their sum is how many they are."""
        observation.check_memory(self, self.last)
        if self.last is None or self.before_last is None:
            return torch.ones(len(observation.present), device="cpu")
        ratios = observation.of_present(self.last / self.before_last)
        # A task that an epoch never held, or whose loss was 0, counts as one that stood still.
        ratios = torch.where(torch.isfinite(ratios), ratios, torch.ones_like(ratios))
        return len(observation.present) * torch.softmax(ratios / self.temperature, 0)

    def update(self, observation: Observation) -> None:
        """Adds the losses of a step to the epoch's."""
        self.sums, self.counts = add_losses(self.sums, self.counts, observation)
        self.steps += 1
        if self.steps_per_epoch is not None and self.steps >= self.steps_per_epoch:
            self._turn()
        else:
            remind_of_epochs(self, self.steps, "its weights are still those of the last one")

    def end_epoch(self) -> None:
        """Moves on to the next epoch, unless the epochs' length is fixed."""
        if self.steps_per_epoch is None:
            self._turn()

    def _turn(self) -> None:
        if self.sums is None or self.counts is None:
            return
        means = self.sums / self.counts
        # A task that this epoch did not hold keeps what is known of it.
        if self.last is not None:
            self.before_last, self.last = self.last, torch.where(self.counts > 0, means, self.last)
        else:
            self.last = means
        self.sums, self.counts, self.steps = None, None, 0

    def __repr__(self) -> str:
        return f"DWA(temperature={self.temperature}, steps_per_epoch={self.steps_per_epoch})"
