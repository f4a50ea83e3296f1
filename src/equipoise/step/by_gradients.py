"""The way of balancers that look at task gradients: one backward pass per task, then the weighted sum of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.mixins import PullsHeads
from equipoise.engine.gradients import TaskGradients
from equipoise.errors import InputError
from equipoise.step.checking import check_gradients, check_losses, check_rows, warn_of_nothing_shared, warn_of_zeros
from equipoise.step.context import Context, Turn
from equipoise.step.crossing import CrossedBatches
from equipoise.step.deciding import decide_direction, decide_weights
from equipoise.step.finding import check_alike, find_shared
from equipoise.step.pulling import Pulling
from equipoise.step.report import KeptRows, StepReport
from equipoise.step.rows import Buffer, Filling, kept_grads, unscaled
from equipoise.step.seen import SeenLosses

__all__ = ["ByGradients"]


class ByGradients:
    """Fills the engine's rows, asks the balancer, and delivers the combination.

    Args:
        context: tasks and parameters.
        batched: how many tasks to differentiate at once; 0 for all, ``None`` for one after the other.
    """

    def __init__(self, context: Context, batched: int | None = None) -> None:
        self.context = context
        self.buffer = Buffer()
        self._filling = Filling(context, batched)
        self._further = CrossedBatches(self._filling, self.buffer)

    def run(self, turn: Turn) -> tuple[StepReport, Observation | None]:
        """Fills ``.grad``; says what happened and what the balancer may learn from."""
        context, source, balancer = self.context, turn.source, turn.balancer
        # First, so that the graph of the step's own batch need not live meanwhile.
        crossing = self._further.cross(turn) if turn.further else None
        pulling = Pulling(context, turn, balancer) if isinstance(balancer, PullsHeads) and balancer.pulls else None
        metric = context.metric(balancer)
        if metric is not None and pulling is not None:
            raise InputError(f"{balancer!r} pulls heads by derivatives of plain inner products; leave metric= out")
        first = context.first(source)
        if crossing is None:
            find_shared(context, first, source)
        engine = self.buffer.fitting(context)
        if pulling is not None:
            pulling.hold(first)
        check_alike(context, [*context.shared.parameters, *context.others()])
        seen, factors = self._filling.fill(engine, turn, first, source.losses, keep=pulling is not None)
        present, means = seen.present, seen.means()
        names = context.names(present)
        gramian: Tensor | None = None
        weights: Tensor | None = None
        if balancer.needs == "gramian":
            inverses = None if metric is None else metric.inverses(engine.parameters)
            gramian = unscaled(engine.gramian(inverses).cpu(), factors, turn.scale)
            squares = gramian.diagonal()
        else:
            squares = engine.row_norms()
        overflow = check_rows(turn, squares, means, names)
        if not engine.parameters:
            return self._own_alone(turn, seen), None
        if any(engine.reached) or len(present) == len(context.tasks):  # else a batch of tasks that reach nothing shared
            warn_of_zeros(context, squares)
        if crossing is not None and crossing.overflow:
            overflow = True
            # The scaler has to see what it cannot see in this batch's gradients.
            direction = engine.combine(torch.full_like(squares, torch.inf))
        elif overflow:
            direction = engine.combine(torch.ones_like(squares))
        elif gramian is not None:
            weights = decide_weights(context, turn, present, means, gramian=gramian, crossing=crossing)
            direction = engine.combine(weights.double().cpu() * factors)
        else:
            direction = self._direction(turn, engine, present, means, factors)
        engine.deliver(direction)
        others = context.others()
        context.processes.sum_gradients(others)
        if pulling is not None and weights is not None and gramian is not None:
            pulling.add(engine, weights, gramian, seen, factors)
        check_gradients(context, turn, others, present)
        kept: KeptRows | None = None
        if balancer.needs == "gradients":
            scale = None if turn.scale is None else turn.scale.clone()  # which the scaler goes on to change
            kept = KeptRows(engine, partial(unscaled, factors=factors, scale=scale))
        report = StepReport(names, means, weights, gramian, turn.step, skipped=overflow, rows=kept)
        return report, context.observation(turn, present, means, gramian, layout=self.buffer.layout)

    def _own_alone(self, turn: Turn, seen: SeenLosses) -> StepReport:
        """Nothing shared is trained: task-specific parameters have their gradients, and there is nothing to balance."""
        context, names, means = self.context, self.context.names(seen.present), seen.means()
        warn_of_nothing_shared(context)
        if context.check_finite:
            check_losses(means, names, turn.step)
        others = context.others()
        context.processes.sum_gradients(others)
        check_gradients(context, turn, others, seen.present)
        return StepReport(names, means, step=turn.step)

    def gramian(self, turn: Turn) -> tuple[Tensor, tuple[int, ...]]:
        """The Gramian ``[k, k]`` of the tasks present, and their positions; ``.grad`` stays as it is."""
        context, source = self.context, turn.source
        with kept_grads(context.everything()):
            first = context.named(source.rehearse(0))
            find_shared(context, first, source)
            engine = self.buffer.fitting(context)
            seen, factors = self._filling.fill(engine, turn, first, source.rehearse)
        gramian = unscaled(engine.gramian().cpu(), factors, turn.scale)
        if engine.parameters:
            warn_of_zeros(context, gramian.diagonal())
        else:
            warn_of_nothing_shared(context)
        return gramian, seen.present

    def forget(self) -> None:
        """Lets go of the rows."""
        self.buffer.forget()
        self._further.forget()

    def _direction(self, turn: Turn, engine: TaskGradients, present: Sequence[int], means: Tensor, factors: Tensor) -> Tensor:
        """The balancer's direction, as long as a row of the engine."""
        context = self.context
        if context.check_finite:
            check_losses(means, context.names(present), turn.step)
        rows = engine.compact()
        multiplier = factors.to(rows)
        if turn.scale is not None:
            multiplier = multiplier / turn.scale.to(rows)
        if turn.scale is not None or bool((factors != 1).any()):
            rows = rows * multiplier[:, None]
        direction = decide_direction(context, turn, context.observation(turn, present, means, None, rows, self.buffer.layout))
        return engine.expand(direction if turn.scale is None else direction * turn.scale.to(rows))
