"""The drop-in: one line in place of ``sum(losses).backward()``."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.balance.coerce import as_balancer
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import OnFeatures
from equipoise.distributed import Processes
from equipoise.engine.graph import leaves_of_all
from equipoise.engine.shared import SharedParameters
from equipoise.engine.sparse import added
from equipoise.errors import InputError
from equipoise.method import MethodSpec
from equipoise.step.balancing import Balancing
from equipoise.step.report import StepReport
from equipoise.step.source import Given
from equipoise.tasks import Losses, Tasks, as_losses

__all__ = ["backward"]

# A balancer that is used again keeps its tasks and its buffer; both go when the balancer goes. Balancers are told apart by
# identity, for a user's own may be equal to another, or have no hash.
_known: dict[int, Balancing] = {}

_every = Processes()


@_every.together()
def backward(
    losses: Losses,
    balancer: Balancer | Any,
    shared: nn.Module | Iterable[Tensor] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    check_finite: bool = True,
    further: Sequence[Losses] | None = None,
) -> StepReport:
    """Adds the balanced gradients to ``.grad``; everything else stays yours.

    Shared parameters get the balancer's combination of the task gradients, task-specific ones their own task's gradient
    (times its weight where the balancer looks at losses only). As ``sum(losses).backward()`` does, this adds to what
    ``.grad`` holds and frees the graph. Under ``torch.distributed`` gradients are averaged over the processes.

    Args:
        losses: mapping task → scalar, a sequence of scalars or a tensor ``[K]``; a scalar may be a zero-argument callable.
            The first call fixes a balancer's tasks, unless they are declared; later ones may bring a subset, by name.
        balancer: kept by you from step to step, for many have a memory; or one that has none by name, as text or as a
            :class:`~equipoise.MethodSpec`: ``"fairgrad:alpha=2"``.
        shared: a module or parameters; left out, the leaves that two or more losses reach. Passing it saves a search
            of the graph.
        tasks: all tasks in their order, to declare them before the first batch that holds them all.
        scaler: a gradient scaler, if ``.grad`` is to come out scaled by it. The losses must not be scaled already.
        check_finite: raise on losses and gradients that are not finite.
        further: for balancers that look at two further batches (MoDo, SDMGrad): the losses on each, in the form of
            ``losses``, at the same parameters. Their graphs are freed, too, and nothing of them is added to ``.grad``; what
            your evaluation of them did to batch-norm statistics and the random state is yours.

    Returns:
        What happened: losses, weights, Gramian …

    Raises:
        InputError: losses, balancer or shared parameters that cannot be used.
        UnknownTaskError: a task that the balancer's first call did not have.
        NonFiniteError: a loss or gradient that is not finite. The balancer is as before; after a loss so is ``.grad``,
            after a gradient it must be cleared (``optimizer.zero_grad()``).

    Example:
        >>> model = nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> balancer = __import__("equipoise").MGDA()
        >>> out = model(torch.ones(5, 2))
        >>> report = backward([out[:, 0].square().mean(), out[:, 1].square().mean()], balancer)
        >>> optimizer.step()
        >>> report.tasks
        ('task0', 'task1')
    """
    chosen = as_balancer(balancer)
    if isinstance(balancer, str | MethodSpec) and chosen.stateful:
        raise InputError(
            f'"{balancer}" has a memory, so it must outlive the step: make it once before the loop, '
            f'balancer = equipoise.balancer("{balancer}"), and pass that'
        )
    if isinstance(chosen, OnFeatures):
        raise InputError(
            f"{type(chosen).__name__} takes gradients at the output of a module, which must be recorded while the losses are "
            "evaluated; use MultiTaskOptimizer"
        )
    given, count = len(further or ()), further_batches(chosen)
    if given != count:
        expected = f"{count} further batches: further=[losses of each]" if count else "no further batches"
        raise InputError(f"{type(chosen).__name__} looks at {expected}; got {given}")
    balancing = _known.get(id(chosen))
    if balancing is None:
        balancing = _known[id(chosen)] = Balancing(Tasks(), SharedParameters())
        weakref.finalize(chosen, _known.pop, id(chosen)).atexit = False
    context = balancing.context
    context.check_finite = check_finite
    if tasks is not None:
        if not context.tasks.known:
            context.tasks.fix(tasks)
        elif context.tasks.names != tuple(tasks):
            raise InputError(
                f"this balancer's tasks are {', '.join(context.tasks.names)}, not {', '.join(tasks)}; "
                f"make a new balancer for another problem"
            )
    if shared is not None or context.shared.declared:
        context.shared = SharedParameters(shared)
    source = Given(as_losses(losses, context.tasks.names or None))
    samples = [Given(as_losses(sample, context.tasks.names or None)) for sample in further or ()]
    scale = None
    if scaler is not None and scaler.is_enabled():
        device = next((loss.device for loss in source.losses(0).values() if isinstance(loss, Tensor)), None)
        scale = scaler.scale(torch.ones((), device=device))
    with _set_aside(source, context.processes.count):
        report = balancing.run(chosen, source, balancing.steps, scale, samples)
    if report.skipped:
        balancing.rollback()
    else:
        balancing.commit()
    return report


@contextmanager
def _set_aside(source: Given, processes: int) -> Iterator[None]:
    """Keeps what ``.grad`` holds already from being averaged over the processes a second time."""
    if processes == 1:
        yield
        return
    evaluated = [loss for loss in source.losses(0).values() if isinstance(loss, Tensor)]
    before = {leaf: leaf.grad for leaf in leaves_of_all(evaluated) if leaf.grad is not None}
    for leaf in before:
        leaf.grad = None
    try:
        yield
    finally:
        for leaf, grad in before.items():
            leaf.grad = added(leaf.grad, grad)
