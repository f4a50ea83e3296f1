"""The products of the task gradients on the two further batches of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from equipoise.engine.gradients import TaskGradients
from equipoise.engine.gramian import cross_gramian
from equipoise.engine.graph import leaves_of_all
from equipoise.errors import InputError, NonFiniteError
from equipoise.modes import not_compiled
from equipoise.step.checking import check_losses, check_rows
from equipoise.step.context import Turn, Unlabelled
from equipoise.step.finding import check_alike, find_shared
from equipoise.step.rows import Buffer, Filling, kept_grads
from equipoise.step.seen import SeenLosses

__all__ = ["CrossedBatches", "Crossing"]


class Crossing(NamedTuple):
    """What the further batches gave.

    Attributes:
        present: positions of the c tasks that both of them hold, ascending.
        products: G(z₁) G(z₂)ᵀ ``[c, c]`` in float64 on the CPU.
        overflow: whether a gradient scaler's scale was too large for either of them.
    """

    present: tuple[int, ...]
    products: Tensor
    overflow: bool


class _Side(NamedTuple):
    """One of the two batches.

    Attributes:
        engine: holds its rows ``[k, P]``.
        seen: which tasks it holds.
        factors: what each of the rows is still to be multiplied with, ``[k]``.
        overflow: whether a gradient scaler's scale was too large for them.
    """

    engine: TaskGradients
    seen: SeenLosses
    factors: Tensor
    overflow: bool


class CrossedBatches:
    """Differentiates the further batches of a step; ``.grad`` stays as it is.

    Args:
        filling: how rows are filled.
        buffer: for the rows of the first batch; those of the step's own batch come after them.
    """

    def __init__(self, filling: Filling, buffer: Buffer) -> None:
        self.context = filling.context
        self.filling = filling
        self.buffers = (buffer, Buffer())

    def cross(self, turn: Turn) -> Crossing:
        """The products of the task gradients on one batch (rows) and the other (columns)."""
        self._look_ahead(turn)
        engines = [buffer.fitting(self.context) for buffer in self.buffers]
        first, second = (self._side(place, engine, turn) for place, engine in enumerate(engines))
        present = tuple(position for position in first.seen.present if position in second.seen.counts)
        metric = self.context.metric(turn.balancer)
        inverses = None if metric is None else first.engine.laid_out(metric.inverses(first.engine.parameters))
        products = cross_gramian(first.engine.rows, second.engine.rows, inverses).cpu()
        products = products * torch.outer(first.factors, second.factors)
        left, right = ([side.seen.present.index(position) for position in present] for side in (first, second))
        if turn.scale is not None:
            # The scaler's scale is in the rows.
            products = products / turn.scale.cpu().double().square()
        return Crossing(present, products[left][:, right], first.overflow or second.overflow)

    def forget(self) -> None:
        """Lets go of the second batch's rows."""
        self.buffers[1].forget()

    def _side(self, place: int, engine: TaskGradients, turn: Turn) -> _Side:
        """Fills the rows from one of the batches."""
        context, source = self.context, turn.further[place]
        ahead = Turn(turn.balancer, source, turn.step, turn.scale, scaled=turn.scaled)
        with source.apart(), _noted(place):
            first = context.named(source.losses(0))
            evaluated = [] if context.parameters else [loss for loss in first.values() if isinstance(loss, Tensor)]
            with kept_grads(list(dict.fromkeys([*context.everything(), *leaves_of_all(evaluated)]))):
                check_alike(context, [*context.shared.parameters, *context.others()])
                try:
                    seen, factors = self.filling.fill(engine, ahead, first, source.losses)
                except Unlabelled:  # then no task is in both batches, and nothing is to be moved
                    return _Side(engine, SeenLosses(), torch.ones(len(context.tasks), dtype=torch.float64, device="cpu"), False)
            means, names = seen.means(), context.names(seen.present)
            overflow = check_rows(ahead, engine.row_norms(), means, names)
            if context.check_finite:
                check_losses(means, names, turn.step)
        return _Side(engine, seen, factors, overflow)

    def _look_ahead(self, turn: Turn) -> None:
        """Finds the shared parameters from all batches of the step before one is differentiated.

        Each of them may bring other tasks, and the rows of all must be of one layout.
        """
        context, shared = self.context, self.context.shared
        known = context.tasks.known and shared.knows(range(len(context.tasks)))
        if known and context.parameters and shared.current(context.parameters):
            return
        for source in (turn.source, *turn.further):  # the step's own comes first, for a first batch fixes the tasks
            with nullcontext() if source is turn.source else suppress(Unlabelled), source.rehearsal(), not_compiled():
                find_shared(context, context.named(source.rehearse(0)), source)


@contextmanager
def _noted(place: int) -> Iterator[None]:
    """Says which of the step's batches an error is about."""
    try:
        yield
    except (InputError, NonFiniteError) as error:
        error.add_note(f"this is about further batch {place + 1} of the step")
        raise
