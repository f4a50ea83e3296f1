"""The way of balancers that look at task gradients: one backward pass per task, then the weighted sum of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from equipoise.autocast import without_autocast
from equipoise.balance.base import Observation
from equipoise.compiled import not_compiled
from equipoise.engine.gradients import TaskGradients
from equipoise.engine.origin import origins
from equipoise.errors import InputError, NonFiniteError
from equipoise.step.context import Context
from equipoise.step.crossing import Crossing, Side, crossed
from equipoise.step.finite import as_tensor, check_losses, raise_nonfinite, which_finite
from equipoise.step.pulling import Pulling, pulls
from equipoise.step.report import StepReport
from equipoise.step.seen import SeenLosses
from equipoise.step.source import Turn
from equipoise.tasks import Loss

__all__ = ["ByGradients", "check_rows", "select", "task_seed", "unscaled"]


class ByGradients:
    """Fills the engine's rows, asks the balancer, and delivers the combination.

    Args:
        context: tasks and parameters.
        batched: how many tasks to differentiate at once; 0 for all, ``None`` for one after the other.
    """

    def __init__(self, context: Context, batched: int | None = None) -> None:
        self.context = context
        self.batched = batched
        self._engine: TaskGradients | None = None
        self._second: TaskGradients | None = None  # the rows of the second further batch

    def __getstate__(self) -> dict[str, Any]:
        # Copied or pickled, the buffer's views would no longer be views; the next step makes a new one.
        return self.__dict__ | {"_engine": None, "_second": None}

    def run(self, turn: Turn) -> tuple[StepReport, Observation]:
        """Fills ``.grad``; says what happened and what the balancer may learn from."""
        context = self.context
        # First, so that the graph of the step's own batch need not live meanwhile.
        crossing = self._cross(turn) if turn.further else None
        pulling = Pulling(context, turn, turn.balancer) if pulls(turn.balancer) else None
        first = context.named(turn.source.losses(0))
        if crossing is None:
            context.find_shared(first, turn.source)
        engine = self._fitting_engine()
        if pulling is not None:
            pulling.hold(first)
        context.check_alike([*context.shared.parameters, *context.others()])
        seen, factors = self._fill(engine, turn, first, turn.source.losses)
        present, means = seen.present, seen.means()
        names = context.names(present)
        gramian: Tensor | None = None
        weights: Tensor | None = None
        if turn.balancer.needs == "gramian":
            gramian = unscaled(select(engine.gramian(), present), factors[list(present)], turn.scale)
            squares = gramian.diagonal()
        else:
            squares = select(engine.row_norms(), present)
        overflow = check_rows(context, turn, squares, means, names)
        if crossing is not None and crossing.overflow:
            overflow = True
            # The scaler has to see what it cannot see in this batch's gradients.
            direction = engine.combine(torch.full((len(context.tasks),), torch.inf))
        elif overflow:
            direction = engine.combine(torch.ones(len(context.tasks)))
        elif gramian is not None:
            weights = context.decide(turn, present, means, gramian=gramian, crossing=crossing)
            full = torch.zeros(len(context.tasks), dtype=torch.float64)
            full[list(present)] = weights.double().cpu()
            direction = engine.combine(full * factors)
        else:
            direction = self._direction(turn, engine, present, means, factors)
        engine.deliver(direction)
        others = context.others()
        context.processes.sum_gradients(others)
        if pulling is not None and weights is not None and gramian is not None:
            pulling.add(engine, weights, gramian, seen, factors)
        context.check_gradients(turn, others, present)
        report = StepReport(names, means, weights, gramian, turn.step, skipped=overflow)
        return report, context.observation(turn, present, means, gramian)

    def gramian(self, turn: Turn) -> Tensor:
        """The Gramian ``[k, k]`` of the tasks present; ``.grad`` stays as it is."""
        with _kept_grads(self.context.everything()):
            first = self.context.named(turn.source.rehearse(0))
            self.context.find_shared(first, turn.source)
            engine = self._fitting_engine()
            seen, factors = self._fill(engine, turn, first, turn.source.rehearse)
        present = seen.present
        return unscaled(select(engine.gramian(), present), factors[list(present)], turn.scale)

    def forget(self) -> None:
        """Lets go of the rows."""
        self._engine = self._second = None

    def _fitting_engine(self) -> TaskGradients:
        shared, tasks = self.context.shared.parameters, len(self.context.tasks)
        if self._engine is None or not self._engine.serves(shared, tasks):
            self._engine = None  # let go of the old buffer before the new one is allocated
            self._engine = TaskGradients(shared, tasks)
        return self._engine

    def _second_engine(self) -> TaskGradients:
        shared, tasks = self.context.shared.parameters, len(self.context.tasks)
        if self._second is None or not self._second.serves(shared, tasks):
            self._second = None
            self._second = TaskGradients(shared, tasks)
        return self._second

    def _cross(self, turn: Turn) -> Crossing:
        """The products of the task gradients on the two further batches; ``.grad`` stays as it is."""
        self._look_ahead(turn)
        engines = (self._fitting_engine(), self._second_engine())
        sides = [self._side(place, engine, turn) for place, engine in enumerate(engines)]
        return crossed(sides[0], sides[1], turn.scale)

    def _side(self, place: int, engine: TaskGradients, turn: Turn) -> Side:
        """Fills the rows from one of the further batches."""
        context, source = self.context, turn.further[place]
        ahead = Turn(turn.balancer, source, turn.step, turn.scale)
        with source.apart(), _noted(place):
            with _kept_grads(context.everything()):
                first = context.named(source.losses(0))
                context.check_alike([*context.shared.parameters, *context.others()])
                seen, factors = self._fill(engine, ahead, first, source.losses)
            means, names = seen.means(), context.names(seen.present)
            overflow = check_rows(context, ahead, select(engine.row_norms(), seen.present), means, names)
            if context.check_finite:
                check_losses(means, names, turn.step)
        return Side(engine, seen, factors, overflow)

    def _look_ahead(self, turn: Turn) -> None:
        """Finds the shared parameters from all batches of the step before one is differentiated.

        Each of them may bring other tasks, and the rows of all must be of one layout.
        """
        context, shared = self.context, self.context.shared
        known = context.tasks.known and shared.knows(range(len(context.tasks)))
        if known and context.parameters and shared.current(context.parameters):
            return
        for source in (turn.source, *turn.further):  # the step's own comes first, for a first batch fixes the tasks
            with source.rehearsal(), not_compiled():
                context.find_shared(context.named(source.rehearse(0)), source)

    def _fill(
        self,
        engine: TaskGradients,
        turn: Turn,
        first: dict[int, Loss],
        evaluate: Callable[[int], dict[str, Loss]],
    ) -> tuple[SeenLosses, Tensor]:
        """Differentiates every task of every micro-batch into the engine's rows.

        Returns:
            The losses, and what each of the K rows is still to be multiplied with.
        """
        context, source = self.context, turn.source
        if source.micro_batches > 1:
            everywhere = source.micro_batches * context.processes.count
            counts = dict.fromkeys(range(len(context.tasks)), everywhere)
        else:
            counts = context.gather(SeenLosses({position: torch.zeros(()) for position in first})).counts
        seen = SeenLosses()
        with engine.recording():
            for micro_batch in range(source.micro_batches):
                losses = first if micro_batch == 0 else context.named(evaluate(micro_batch))
                self._differentiate(engine, turn, losses, counts, seen)
        context.gather(seen)
        if context.processes.count > 1:
            context.processes.sum(engine.rows)
            flags = torch.tensor([engine.reached, engine.sparse], dtype=torch.int32, device=engine.rows.device)
            engine.reached, engine.sparse = context.processes.sum(flags).bool().tolist()
        factors = torch.ones(len(context.tasks), dtype=torch.float64)
        for position, count in seen.counts.items():
            if count != counts[position]:
                # Some micro-batches lacked this task: its mean is over fewer.
                factors[position] = counts[position] / count
                for parameter in context.shared.own.get(position, ()):
                    if parameter.grad is not None:
                        parameter.grad.mul_(counts[position] / count)
        return seen, factors

    def _differentiate(
        self,
        engine: TaskGradients,
        turn: Turn,
        losses: dict[int, Loss],
        counts: Mapping[int, int],
        seen: SeenLosses,
    ) -> None:
        context = self.context
        keep = pulls(turn.balancer) and turn.source.micro_batches == 1  # to be differentiated once more
        eager = {p: context.scalar(p, loss) for p, loss in losses.items() if isinstance(loss, Tensor)}
        if context.looks_early and eager and next(iter(eager.values())).device.type == "cpu":
            here = SeenLosses(eager)
            check_losses(here.means(), context.names(here.present), turn.step)
        if self.batched is not None and len(eager) > 1:
            self._differentiate_together(engine, turn, eager, counts, seen, retain_graph=keep or len(eager) < len(losses))
            losses = {position: loss for position, loss in losses.items() if position not in eager}
        # Callables come last: they may build on what the batch's other losses have in common.
        order = sorted(losses, key=lambda position: not isinstance(losses[position], Tensor))
        for place, position in enumerate(order):
            retain = place < len(order) - 1 or (keep and position in eager)
            value = eager.pop(position) if position in eager else context.scalar(position, losses[position])
            seen.add(position, value)
            with without_autocast(value.device):
                engine.differentiate(position, value, task_seed(value, counts[position], turn.scale), retain_graph=retain)
            losses[position] = value = value.detach()  # lets go of the graph

    def _differentiate_together(
        self,
        engine: TaskGradients,
        turn: Turn,
        losses: dict[int, Tensor],
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
            engine.differentiate_together(list(losses), values, seeds, chunk=self.batched or None)
            own = (leaf for position in losses for leaf in self.context.shared.own.get(position, ()))
            rest = list(dict.fromkeys([*own, *self.context.shared.undeclared]))
            if rest:
                starts = origins(values)
                seeds = [torch.ones_like(value) if seed is None else seed for value, seed in zip(values, seeds, strict=True)]
                torch.autograd.backward(starts, seeds, inputs=rest, retain_graph=retain_graph)

    def _direction(self, turn: Turn, engine: TaskGradients, present: Sequence[int], means: Tensor, factors: Tensor) -> Tensor:
        if self.context.check_finite:
            check_losses(means, self.context.names(present), turn.step)
        rows = engine.compact()
        if len(present) < len(rows):
            rows = rows[torch.tensor(list(present), device=rows.device)]
        multiplier = factors[list(present)].to(rows)
        if turn.scale is not None:
            multiplier = multiplier / turn.scale.to(rows)
        if turn.scale is not None or bool((multiplier != 1).any()):
            rows = rows * multiplier[:, None]
        observation = self.context.observation(turn, present, means, gradients=rows)
        with torch.no_grad(), without_autocast(rows.device):
            direction = as_tensor(turn.balancer.decide(observation), turn.balancer)
        if direction.shape != rows.shape[1:]:
            raise InputError(
                f"{type(turn.balancer).__name__} must answer with a direction of {rows.shape[1]} entries; "
                f"it gave the shape {list(direction.shape)}"
            )
        direction = direction.to(rows)
        if self.context.check_finite and not bool(torch.isfinite(direction).all()):
            raise_nonfinite("direction", self.context.names(present), turn.step, f" ({turn.balancer!r})")
        return engine.expand(direction if turn.scale is None else direction * turn.scale.to(rows))


def task_seed(loss: Tensor, count: int, scale: Tensor | None) -> Tensor | None:
    """What a loss's gradient is multiplied with: a gradient scaler's scale over the number of micro-batches."""
    if count == 1 and scale is None:
        return None
    seed = torch.full_like(loss, 1.0 / count, requires_grad=False)
    return seed if scale is None else seed * scale.to(seed)


def select(values: Tensor, present: Sequence[int]) -> Tensor:
    """Entries of a ``[K]`` or ``[K, K]`` tensor that belong to the tasks present, on the CPU."""
    values = values.cpu()
    if len(present) == len(values):
        return values
    index = torch.tensor(list(present))
    return values[index] if values.dim() == 1 else values[index][:, index]


def unscaled(gramian: Tensor, factors: Tensor, scale: Tensor | None) -> Tensor:
    """The Gramian of the tasks' mean gradients, from that of the rows ``[k, k]`` as they were written."""
    if bool((factors != 1).any()):
        gramian = gramian * torch.outer(factors, factors)
    return gramian if scale is None else gramian / scale.cpu().double().square()


def check_rows(context: Context, turn: Turn, squares: Tensor, means: Tensor, names: Sequence[str]) -> bool:
    """Whether a gradient scaler's overflow is in the rows; without a scaler, what is not finite raises.

    Args:
        context: tasks and checks.
        turn: the step.
        squares: one number per task ``[k]`` that is finite if its gradient is.
        means: losses ``[k]``.
        names: of these tasks.
    """
    finite = which_finite(squares)
    if all(finite):
        return False
    # A loss that is not finite is the cause, and the better thing to name.
    check_losses(means, names, turn.step)
    if turn.scale is None:
        bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
        raise_nonfinite("gradient", bad, turn.step)
    return True


@contextmanager
def _noted(place: int) -> Iterator[None]:
    """Says which of the step's batches an error is about."""
    try:
        yield
    except (InputError, NonFiniteError) as error:
        error.add_note(f"this is about further batch {place + 1} of the step")
        raise


@contextmanager
def _kept_grads(parameters: Sequence[Tensor]) -> Iterator[None]:
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        yield
    finally:
        for parameter, grad in zip(parameters, before, strict=True):
            parameter.grad = grad
