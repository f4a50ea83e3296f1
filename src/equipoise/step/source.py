"""Where the losses of a step come from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from equipoise.balance.base import Balancer
from equipoise.tasks import Loss

__all__ = ["Source", "Turn"]


class Source(Protocol):
    """Gives the losses of a step, micro-batch by micro-batch."""

    @property
    def micro_batches(self) -> int:
        """How many micro-batches the step consists of."""

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """A micro-batch's losses, for the backward pass."""

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """The same losses without a trace: buffers stay as they are."""

    def rehearsal(self) -> AbstractContextManager[None]:
        """Puts the random state back after its body, so that the performance draws the same numbers."""


class Turn:
    """One step under way.

    Args:
        balancer: how the tasks combine.
        source: the losses.
        step: index of the step, counted from 0.
        scale: of a gradient scaler. ``.grad`` comes out multiplied by it; the balancer does not see it.
    """

    def __init__(self, balancer: Balancer, source: Source, step: int, scale: Tensor | None = None) -> None:
        self.balancer = balancer
        self.source = source
        self.step = step
        self.scale = scale
