"""The rows of a step: every task of every micro-batch is differentiated into the engine, one graph at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from equipoise.balance.base import Layout
from equipoise.engine.gradients import TaskGradients
from equipoise.engine.graph import is_compiled, origins
from equipoise.errors import warn_once
from equipoise.modes import without_autocast
from equipoise.step.checking import check_losses, looks_early
from equipoise.step.context import Context, Turn
from equipoise.step.seen import SeenLosses
from equipoise.tasks import Loss

__all__ = ["Buffer", "Filling", "kept_grads", "task_seed", "unscaled"]


class Buffer:
    """The engine of a training run, made again where the shared parameters are others, or of another kind."""

    def __init__(self) -> None:
        self.engine: TaskGradients | None = None
        self.layout: Layout = ()

    def __getstate__(self) -> dict[str, Any]:
        # Copied or pickled, the engine's views would no longer be views; the next step makes a new one.
        return {"engine": None, "layout": ()}

    def fitting(self, context: Context) -> TaskGradients:
        """An engine for the parameters of now."""
        shared = context.shared.parameters
        if self.engine is None or not self.engine.serves(shared):
            self.engine = None  # let go of the old rows before new ones are allocated
            self.engine = TaskGradients(shared)
            self.layout = context.layout(shared, self.engine.sizes())
        return self.engine

    def forget(self) -> None:
        """Lets go of the rows."""
        self.engine = None


class Filling:
    """Differentiates the tasks of a step into the rows of an engine.

    Args:
        context: tasks and parameters.
        batched: how many tasks to differentiate at once; 0 for all, ``None`` for one after the other.
    """

    def __init__(self, context: Context, batched: int | None = None) -> None:
        self.context = context
        self.batched = batched

    def fill(
        self,
        engine: TaskGradients,
        turn: Turn,
        first: dict[int, Loss],
        evaluate: Callable[[int], dict[str, Loss]],
        *,
        keep: bool = False,
    ) -> tuple[SeenLosses, Tensor]:
        """Differentiates every task of every micro-batch, of which ``evaluate`` gives the further ones.

        ``keep`` leaves the graph of a single micro-batch alive, to be differentiated once more.

        Returns:
            The losses, and what each of the k rows, one per task present, is still to be multiplied with.
        """
        context, source = self.context, turn.source
        if source.micro_batches > 1:
            everywhere = source.micro_batches * context.processes.count
            counts = dict.fromkeys(range(len(context.tasks)), everywhere)
        else:
            none = {position: torch.zeros((), device="cpu") for position in first}
            counts = context.gather(SeenLosses(none), "presence").counts
        seen = SeenLosses()
        keep = keep and source.micro_batches == 1
        rows = {position: row for row, position in enumerate(sorted(counts if source.micro_batches == 1 else first))}
        engine.begin(len(rows))
        with engine.recording():
            for micro_batch in range(source.micro_batches):
                losses = first if micro_batch == 0 else context.named(evaluate(micro_batch))
                for position in sorted(losses.keys() - rows.keys()):
                    rows[position] = len(rows)
                if len(rows) > engine.tasks:
                    engine.grow(len(rows), at_most=len(context.tasks))
                self._differentiate(engine, turn, losses, rows, counts, seen, keep=keep)
        context.gather(seen)
        engine.arrange([rows.get(position) for position in seen.present])
        if context.processes.count > 1 and engine.parameters:
            engine.reached, engine.sparse = context.processes.either([engine.reached, engine.sparse], "shared gradients")
            context.processes.add(engine.rows)
        factors = torch.ones(len(seen.present), dtype=torch.float64, device="cpu")
        for row, position in enumerate(seen.present):
            count = seen.counts[position]
            if count != counts[position]:
                # Some micro-batches lacked this task: its mean is over fewer.
                factors[row] = counts[position] / count
                for parameter in context.shared.own.get(position, ()):
                    if parameter.grad is not None:
                        parameter.grad.mul_(counts[position] / count)
        return seen, factors

    def _differentiate(
        self,
        engine: TaskGradients,
        turn: Turn,
        losses: dict[int, Loss],
        rows: Mapping[int, int],
        counts: Mapping[int, int],
        seen: SeenLosses,
        *,
        keep: bool,
    ) -> None:
        context = self.context
        eager = {p: context.scalar(p, loss) for p, loss in losses.items() if isinstance(loss, Tensor)}
        if looks_early(context) and eager and next(iter(eager.values())).device.type == "cpu":
            here = SeenLosses(eager)
            check_losses(here.means(), context.names(here.present), turn.step)
        if self.batched is not None and len(eager) > 1 and engine.parameters:
            retain = keep or len(eager) < len(losses)
            self._differentiate_together(engine, turn, eager, rows, counts, seen, retain_graph=retain)
            losses = {position: loss for position, loss in losses.items() if position not in eager}
        # Callables come last: they may build on what the batch's other losses have in common.
        order = sorted(losses, key=lambda position: not isinstance(losses[position], Tensor))
        for place, position in enumerate(order):
            retain = place < len(order) - 1 or (keep and position in eager)
            value = eager.pop(position) if position in eager else context.scalar(position, losses[position])
            seen.add(position, value)
            # A compiled graph whose first backward pass is its only one could never be differentiated by several.
            retain = retain or (len(order) == 1 and is_compiled(value))
            with without_autocast(value.device):
                seed = task_seed(value, counts[position], turn.scale)
                engine.differentiate(rows[position], value, seed, retain_graph=retain)
            losses[position] = value = value.detach()  # lets go of the graph

    def _differentiate_together(
        self,
        engine: TaskGradients,
        turn: Turn,
        losses: dict[int, Tensor],
        rows: Mapping[int, int],
        counts: Mapping[int, int],
        seen: SeenLosses,
        *,
        retain_graph: bool,
    ) -> None:
        values = list(losses.values())
        for position, value in losses.items():
            seen.add(position, value)
        seeds = [task_seed(value, counts[position], turn.scale) for position, value in losses.items()]
        with without_autocast(values[0].device):
            places = [rows[position] for position in losses]
            failed = engine.differentiate_together(places, values, seeds, chunk=self.batched or None)
            if failed is not None:
                self.batched = None
                reason = (str(failed).splitlines() or [""])[0][:200]
                warn_once(
                    self.context,
                    "batched",
                    f"the tasks cannot be differentiated at once and will be one after the other; leave batched= out "
                    f"({type(failed).__name__}: {reason})",
                )
            own = (leaf for position in losses for leaf in self.context.shared.own.get(position, ()))
            rest = list(dict.fromkeys([*own, *self.context.shared.undeclared]))
            if rest:
                starts = origins(values)
                seeds = [torch.ones_like(value) if seed is None else seed for value, seed in zip(values, seeds, strict=True)]
                torch.autograd.backward(starts, seeds, inputs=rest, retain_graph=retain_graph)


def task_seed(loss: Tensor, count: int, scale: Tensor | None) -> Tensor | None:
    """What a loss's gradient is multiplied with: a gradient scaler's scale over the number of micro-batches."""
    if count == 1 and scale is None:
        return None
    seed = torch.full_like(loss, 1.0 / count, requires_grad=False)
    return seed if scale is None else seed * scale.to(seed)


def unscaled(gramian: Tensor, factors: Tensor, scale: Tensor | None) -> Tensor:
    """The Gramian of the tasks' mean gradients, from that of the rows ``[k, k]`` as they were written.

    Args:
        gramian: of the rows.
        factors: what the rows are still to be multiplied with, ``[k]``.
        scale: of a gradient scaler, which is in the rows.
    """
    if bool((factors != 1).any()):
        gramian = gramian * torch.outer(factors, factors)
    return gramian if scale is None else gramian / scale.cpu().double().square()


@contextmanager
def kept_grads(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Runs the body with empty ``.grad``, and puts back what was there."""
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        yield
    finally:
        for parameter, grad in zip(parameters, before, strict=True):
            parameter.grad = grad
