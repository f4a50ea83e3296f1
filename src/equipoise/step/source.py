"""Where the losses of a step come from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from equipoise.balance.base import Balancer
from equipoise.balance.mixins import Elsewhere
from equipoise.tasks import Loss

__all__ = ["FurtherSource", "Source", "Turn"]


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

    def batch(self, micro_batch: int) -> Any:
        """What a micro-batch's losses are evaluated on; ``None`` where only the losses are known."""

    def elsewhere(self) -> Elsewhere | None:
        """Evaluates the losses at other parameters; ``None`` where only the losses are known."""


class FurtherSource(Source, Protocol):
    """Gives the losses on a further batch of a step, which leave no trace: buffers stay as they are."""

    def apart(self) -> AbstractContextManager[None]:
        """Runs its body, in which the losses are evaluated and differentiated, from a random state of its own.

        The present one is put back afterwards, so that the step's own batch draws the numbers that it would draw alone.
        """


class Turn:
    """One step under way.

    Args:
        balancer: how the tasks combine.
        source: the losses.
        step: index of the step, counted from 0.
        scale: of a gradient scaler. ``.grad`` comes out multiplied by it; the balancer does not see it.
        further: losses on further batches, for balancers that look at some.
    """

    def __init__(
        self, balancer: Balancer, source: Source, step: int, scale: Tensor | None = None, further: Sequence[FurtherSource] = ()
    ) -> None:
        self.balancer = balancer
        self.source = source
        self.step = step
        self.scale = scale
        self.further = tuple(further)
