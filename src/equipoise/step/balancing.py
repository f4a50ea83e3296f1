"""Balanced gradients: chooses the way that the balancer's needs ask for, and keeps its memory safe when a step fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from equipoise.balance.base import Balancer, Observation
from equipoise.balance.double_sampling import further_batches
from equipoise.distributed import Processes, refuse_unseen_wrapper
from equipoise.engine.shared import SharedParameters
from equipoise.errors import InputError
from equipoise.step.by_features import ByFeatures
from equipoise.step.by_gradients import ByGradients
from equipoise.step.by_losses import ByLosses
from equipoise.step.context import Context, Turn
from equipoise.step.report import StepReport
from equipoise.step.source import FurtherSource, Source
from equipoise.tasks import Tasks

__all__ = ["Balancing"]


class Balancing:
    """Turns losses into balanced gradients; arguments as for :class:`~equipoise.step.context.Context`.

    Args:
        features: take the Gramian at this module's output instead.
        batched: differentiate so many tasks at once with ``vmap``, 0 for all; one after the other if ``None``.
    """

    def __init__(
        self,
        tasks: Tasks,
        shared: SharedParameters,
        *,
        features: nn.Module | None = None,
        batched: int | None = None,
        processes: Processes | None = None,
        parameters: Sequence[Tensor] = (),
        check_finite: bool = True,
        model: nn.Module | None = None,
    ) -> None:
        self.steps = 0
        self.context = Context(tasks, shared, processes or Processes(), parameters, check_finite, model)
        self._by_losses = ByLosses(self.context)
        self._by_gradients = ByGradients(self.context, batched)
        self._by_features = None if features is None else ByFeatures(self.context, features)
        self._turn: Turn | None = None
        self._before: dict[str, Any] | None = None
        self._observation: Observation | None = None

    def run(
        self, balancer: Balancer, source: Source, step: int, scale: Tensor | None = None, further: Sequence[FurtherSource] = ()
    ) -> StepReport:
        """Fills ``.grad``; :meth:`commit` or :meth:`rollback` must follow.

        Raises:
            InputError: losses or parameters that cannot be used.
            NonFiniteError: a loss or gradient is not finite; the balancer's state is as before.
        """
        expected = further_batches(balancer)
        if len(further) != expected:
            raise InputError(
                f"{type(balancer).__name__} looks at {expected or 'no'} further batches per step; got {len(further)}"
            )
        self._turn = turn = Turn(balancer, source, step, scale, further)
        self.context.begin(f"step {step} of {type(balancer).__name__}, micro-batches: {source.micro_batches}")
        self._before = balancer.state_dict() if balancer.stateful and not balancer.decides_purely else None
        by_gradients = self._by_features or self._by_gradients
        way = self._by_losses if balancer.needs == "losses" else by_gradients
        try:
            report, self._observation = way.run(turn)
        except BaseException as error:
            self.rollback()
            refuse_unseen_wrapper(error)
            raise
        finally:
            if not self.context.parameters:
                # A caller of the drop-in may differentiate more of the same forward pass.
                self.context.wrappers.wake()
        return report

    def commit(self) -> None:
        """Lets the balancer learn from the step."""
        if self._turn is not None and self._observation is not None:
            self._turn.balancer.update(self._observation)
        self.steps += 1
        self._forget()

    def rollback(self) -> None:
        """Puts the balancer back to where it was before the step."""
        if self._turn is not None and self._before is not None:
            self._turn.balancer.load_state_dict(self._before)
        self._forget()

    def gramian(self, balancer: Balancer, source: Source, scale: Tensor | None = None) -> Tensor:
        """The Gramian ``[k, k]`` of the task gradients with respect to the shared parameters, without a trace.

        Args:
            balancer: whose steps these are.
            source: the losses.
            scale: of a gradient scaler, which keeps half-precision gradients from vanishing; the result is without it.
        """
        self.context.begin(f"a look at the Gramian, micro-batches: {source.micro_batches}")
        gramian = self._by_gradients.gramian(Turn(balancer, source, 0, scale))
        if balancer.needs == "losses" or self._by_features is not None:
            # Its steps have no use for the rows, which are K times as large as the shared parameters.
            self._by_gradients.forget()
        return gramian

    def _forget(self) -> None:
        # Nothing of a step may live on: the drop-in keeps this object for as long as its balancer is alive.
        self._turn = self._before = self._observation = None
