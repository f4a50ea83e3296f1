"""Finding out which parameters are shared, before the first loss is differentiated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from equipoise.engine.graph import is_compiled
from equipoise.engine.shared import Reach
from equipoise.errors import InputError, warn_once
from equipoise.modes import not_compiled
from equipoise.step.context import Context, Unlabelled
from equipoise.step.source import Source
from equipoise.tasks import Loss

__all__ = ["check_alike", "find_shared"]


def find_shared(context: Context, losses: Mapping[int, Loss], source: Source) -> None:
    """Makes sure that it is known which parameters are shared, as far as the tasks seen tell.

    Args:
        context: tasks and parameters; what is found is kept in its ``shared``.
        losses: of the first micro-batch, by the position of their task.
        source: where they came from.
    """
    every = range(len(context.tasks))
    if context.parameters and context.shared.current(context.parameters):
        # Processes and micro-batches may bring tasks that these losses lack.
        simple = context.processes.count == 1 and source.micro_batches == 1
        if context.shared.knows(losses if simple else every):
            return
    sightings = _look(context, losses, source)
    if context.parameters:
        sightings = context.processes.pool(sightings, [*context.parameters, *context.shared.declared])
    if not any(sighting.alone for sighting in sightings):
        raise Unlabelled
    names = {position: context.tasks.names[position] for sighting in sightings for position in sighting.alone}
    context.shared.settle(sightings, names, context.parameters)
    if context.shared.doubtful:
        warn_once(
            context,
            "doubtful",
            "the tasks share no nn.Parameter, so the other leaf tensors that they share are balanced as parameters; if they "
            "are inputs (and the shared parameters frozen), name the shared parameters in shared=",
        )


def _look(context: Context, losses: Mapping[int, Loss], source: Source) -> list[Reach]:
    """What the losses of all micro-batches reach.

    Callables and later micro-batches are evaluated once for that without a trace: it must be known before the first one is
    differentiated. So are compiled losses, eagerly, for the graph of a compiled function is a single node.
    """
    eager = [loss for loss in losses.values() if isinstance(loss, Tensor)]
    whole = len(eager) == len(losses)
    if context.parameters and any(is_compiled(loss) for loss in eager):
        whole = False
    names = dict(enumerate(context.tasks.names))
    if whole and source.micro_batches == 1:
        return [context.shared.look(losses, names)]
    sightings: list[Reach] = []
    seen: set[int] = set()
    with source.rehearsal(), not_compiled():
        for micro_batch in range(source.micro_batches):
            part = losses if whole and micro_batch == 0 else context.named(source.rehearse(micro_batch))
            names = dict(enumerate(context.tasks.names))  # the first losses of all may have been none
            sightings.append(context.shared.look(part, names))
            seen |= part.keys()
            if names and seen == names.keys():
                break
    return sightings


def check_alike(context: Context, parameters: Sequence[Tensor]) -> None:
    """Raises on all processes if the parameters found in the graphs cannot be told apart across the processes.

    Where the trained parameters are known from the optimizer, they have the same places everywhere.
    """
    if context.parameters or context.processes.count == 1:
        return
    if context.shared.inputs:
        warn_once(
            context,
            "inputs",
            "leaf tensors that are no nn.Parameter are taken for inputs, whose gradients stay those of their own process; "
            "make them nn.Parameter, or name them in shared=, if they are trained",
        )
    here = sorted(context.here)
    seen = repr((here, [list(parameter.shape) for parameter in parameters]))
    if not context.processes.meet("the parameters reached", same=seen)[1]:
        raise InputError(
            f"the processes' losses differ in their tasks or in the parameters they reach (here: "
            f"{', '.join(context.tasks.names[position] for position in here)}), and the drop-in cannot tell "
            f"which gradients belong together; use MultiTaskOptimizer, or give every process all tasks"
        )
