"""The drop-in: one line in place of ``sum(losses).backward()``."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.balance.coerce import as_balancer, for_one_call
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import OnFeatures, PullsHeads
from equipoise.distributed import Processes
from equipoise.engine.graph import hides_division, leaves_of_all
from equipoise.engine.shared import SharedParameters
from equipoise.engine.sparse import added
from equipoise.errors import InputError, warn_once
from equipoise.modes import forget_compiled, overwrites, uncompiled
from equipoise.proxy import Proxy
from equipoise.step.balancing import Balancing
from equipoise.step.metric import check_metric
from equipoise.step.report import StepReport
from equipoise.step.source import Given
from equipoise.tasks import Loss, Losses, Tasks, as_losses, read_fixed, scalar

__all__ = ["Accumulator", "backward"]

# A balancer that is used again keeps its tasks and its buffer; both go when the balancer goes. Balancers are told apart by
# identity, for a user's own may be equal to another, or have no hash.
_known: dict[int, Balancing] = {}

_every = Processes()


@uncompiled
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
    scale: float = 1.0,
    fixed: Mapping[str, float] | None = None,
    proxy: Proxy | str | nn.Module | Iterable[Tensor] | None = None,
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
            of the graph. Found leaves that are no ``nn.Parameter`` count only if the losses share no ``nn.Parameter``: they
            are inputs, and have their ordinary gradient.
        tasks: all tasks in their order, to declare them before the first batch that holds them all.
        scaler: a gradient scaler, if ``.grad`` is to come out scaled by it. The losses must not be scaled already.
        check_finite: raise on losses and gradients that are not finite.
        further: for balancers that look at two further batches (MoDo, SDMGrad): the losses on each, in the form of
            ``losses``, at the same parameters. Their graphs are freed, too, and nothing of them is added to ``.grad``; what
            your evaluation of them did to batch-norm statistics and the random state is yours.
        scale: what is added to ``.grad`` is multiplied by it, shared and task-specific parameters alike; the balancer sees the
            losses as they are. To add up n calls, give ``scale=1/n``: ``losses / n`` does not scale the shared gradients where
            weights follow the scale of the losses. One balanced step of n micro-batches is :class:`Accumulator`'s.
        fixed: those of the losses that are not balanced, and their weights λ, by name: ``{"kl": 0.1}``; see
            :class:`~equipoise.Objective`.
        proxy: estimate the Gramian from a few shared weights, as for :class:`~equipoise.MultiTaskOptimizer`; a
            :class:`~equipoise.Proxy` with a memory is kept by you.

    Returns:
        What happened: losses, weights, Gramian … Where there are no losses (an empty mapping, for a batch without labels),
        ``skipped`` is true and nothing was added.

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
    chosen = _fit(balancer)
    given, count = len(further or ()), further_batches(chosen)
    if given != count:
        expected = f"{count} further batches: further=[losses of each]" if count else "no further batches"
        raise InputError(f"{type(chosen).__name__} looks at {expected}; got {given}")
    balancing, declared = _balancing_of(chosen, tasks, check_finite=check_finite)
    balancing.estimate_by(proxy, chosen)
    context = balancing.context
    source = Given(as_losses(losses, declared or None, some=False), fixed=read_fixed(fixed, declared))
    context.wrappers.begin(source.losses(0))
    samples = [Given(as_losses(sample, declared or None, some=False)) for sample in further or ()]
    if shared is not None or context.shared.declared:
        context.shared = SharedParameters(shared)
    _warn_of_compiled(chosen, balancing, source, shared)
    factor = _factor(scale, scaler, source)
    with _set_aside(_reached(balancing, source) if context.processes.count > 1 else []):
        return _run(chosen, balancing, source, factor, samples, declared, scaled=scaler is not None and scaler.is_enabled())


class Accumulator:
    """Several micro-batches that make one balanced step in a loop of your own, as ``mtl.step(*micro_batches)`` does.

    Task losses and task gradients are averaged over the micro-batches that hold the task; the balancer sees the averages,
    decides once and learns once. Several calls of :func:`backward` are something else: each of them is balanced for itself.

    A micro-batch is added as its losses, whose graph then lives until :meth:`backward`, or as a function that evaluates them,
    which is called when its turn comes: that takes the memory of one micro-batch. Balancers that look at losses only need all
    of them before their backward pass, and so call each function twice, with the same random numbers.

    Args:
        balancer: as for :func:`backward`.
        shared: as for :func:`backward`.
        tasks: as for :func:`backward`.
        scaler: as for :func:`backward`.
        check_finite: as for :func:`backward`.
        model: whose batch-norm statistics are to move once per micro-batch where a function is called twice.
        fixed: as for :func:`backward`.

    Example:
        >>> import equipoise as eq
        >>> model = nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> accumulator = Accumulator(eq.MGDA())
        >>> for micro_batch in torch.ones(3, 5, 2):
        ...     out = model(micro_batch).square().mean(0)
        ...     accumulator.add({"left": out[0], "right": out[1]})
        >>> report = accumulator.backward()
        >>> optimizer.step()
        >>> report.tasks, len(accumulator)
        (('left', 'right'), 0)
    """

    def __init__(
        self,
        balancer: Balancer | Any,
        shared: nn.Module | Iterable[Tensor] | None = None,
        *,
        tasks: Sequence[str] | None = None,
        scaler: torch.amp.GradScaler | None = None,
        check_finite: bool = True,
        model: nn.Module | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        self.fixed = read_fixed(fixed)
        self.balancer = _fit(balancer, outlives=True)
        if further_batches(self.balancer):
            raise InputError(
                f"{type(self.balancer).__name__} looks at further batches, which only MultiTaskOptimizer accumulates"
            )
        # Both are asked for in every step.
        self.shared = shared if shared is None or isinstance(shared, nn.Module) else list(shared)
        self.tasks = tasks
        self.scaler = scaler
        self.check_finite = check_finite
        self.model = model
        self._parts: list[Losses | Callable[[], Losses]] = []

    def __len__(self) -> int:
        return len(self._parts)

    @uncompiled
    def add(self, losses: Losses | Callable[[], Losses]) -> None:
        """Adds a micro-batch: its losses as for :func:`backward`, or a function without arguments that returns them."""
        self._parts.append(losses)

    @uncompiled
    @_every.together()
    def backward(self) -> StepReport:
        """Adds the balanced gradients of all micro-batches to ``.grad`` and begins anew.

        Raises:
            InputError: no micro-batch was added; else as for :func:`backward`. After any error ``.grad`` is as before, and the
                micro-batches are gone.
        """
        parts, self._parts = self._parts, []
        if not parts:
            raise InputError("there is no micro-batch to differentiate; add() some first")
        balancing, declared = _balancing_of(self.balancer, self.tasks, check_finite=self.check_finite)
        context = balancing.context

        def read(part: Losses) -> dict[str, Loss]:
            return as_losses(part, declared or context.tasks.names or None, some=False)

        given = [partial(_called, part, read) if callable(part) else read(part) for part in parts]
        source = Given(*given, model=self.model, fixed=self.fixed)
        if source.collected and source.tensors() and isinstance(self.balancer, PullsHeads) and self.balancer.pulls:
            raise InputError(
                f"{self.balancer!r} differentiates each micro-batch again when its weights are known; add functions that "
                f"evaluate the losses, add(lambda: losses(model, batch))"
            )
        if self.shared is not None or context.shared.declared:
            context.shared = SharedParameters(self.shared)
        _warn_of_compiled(self.balancer, balancing, source, self.shared)
        factor = _factor(1.0, self.scaler, source)
        scaled = self.scaler is not None and self.scaler.is_enabled()
        with _set_aside(_reached(balancing, source)):
            return _run(self.balancer, balancing, source, factor, (), declared, scaled=scaled)


def _called(evaluate: Callable[[], Losses], read: Callable[[Losses], dict[str, Loss]]) -> dict[str, Loss]:
    return read(evaluate())


def _fit(balancer: Any, *, outlives: bool = False) -> Balancer:
    """A balancer that can be used without an objective."""
    chosen = as_balancer(balancer) if outlives else for_one_call(balancer)
    if isinstance(chosen, OnFeatures):
        raise InputError(
            f"{type(chosen).__name__} takes gradients at the output of a module, which must be recorded while the losses are "
            "evaluated; use MultiTaskOptimizer"
        )
    check_metric(chosen)
    return chosen


def _balancing_of(balancer: Balancer, tasks: Sequence[str] | None, *, check_finite: bool) -> tuple[Balancing, tuple[str, ...]]:
    """What is kept for a balancer, and the names of its tasks as far as they are known or declared now."""
    balancing = _known.get(id(balancer))
    if balancing is None:
        balancing = _known[id(balancer)] = Balancing(Tasks(), SharedParameters())
        weakref.finalize(balancer, _known.pop, id(balancer)).atexit = False
    context = balancing.context
    context.check_finite = check_finite
    context.tasks.check_declared(tasks)
    return balancing, context.tasks.names if tasks is None else Tasks(tasks).names


def _factor(scale: float, scaler: torch.amp.GradScaler | None, source: Given) -> Tensor | None:
    """What the gradients are multiplied with, if anything."""
    if not 0 < scale < math.inf:
        raise InputError(f"scale must be a positive number, such as 1/n for n micro-batches; got {scale}")
    if scaler is None or not scaler.is_enabled():
        return None if scale == 1 else torch.tensor(float(scale), dtype=torch.float64, device="cpu")
    device = next((loss.device for loss in source.tensors()), None)
    return scaler.scale(torch.full((), float(scale), device=device))


def _run(
    balancer: Balancer,
    balancing: Balancing,
    source: Given,
    scale: Tensor | None,
    samples: Sequence[Given],
    declared: Sequence[str],
    *,
    scaled: bool,
) -> StepReport:
    random = source.random_state()
    try:
        report = balancing.run(balancer, source, balancing.steps, scale, samples, scaled=scaled, declared=declared)
    except BaseException as error:
        random.restore()
        if overwrites(error):
            forget_compiled()
            raise InputError(
                "the losses come from a compiled graph whose backward pass runs once, for that is how it was first used. Its "
                "code has been forgotten: evaluate the losses again, and it will be compiled for several passes"
            ) from error
        raise
    if report.skipped:
        balancing.skip()
    else:
        balancing.commit()
    return report


def _warn_of_compiled(balancer: Balancer, balancing: Balancing, source: Given, shared: Any) -> None:
    """A compiled function is one node of the graph: what its outputs have in common cannot be told."""
    if balancing.steps or shared is not None or balancer.needs == "losses":
        return
    if hides_division(source.tensors()):
        warn_once(
            balancing,
            "compiled",
            "the losses come from a compiled graph, of which every loss seems to reach every parameter, so that those of one "
            "task alone are balanced like shared ones; say what is shared, backward(..., shared=model.encoder)",
        )


def _reached(balancing: Balancing, source: Given) -> list[Tensor]:
    """All leaves that a step may reach; callables are evaluated once more where they are new."""
    context = balancing.context
    reached = dict.fromkeys([*leaves_of_all(source.tensors()), *context.everything()])
    if source.new_callables(context.evaluated):
        context.evaluated.add("")
        with source.rehearsal():
            for micro_batch in range(source.micro_batches):
                for name, loss in source.rehearse(micro_batch).items():
                    context.evaluated.add(name)
                    reached |= dict.fromkeys(leaves_of_all([scalar(name, loss)]))
    return list(reached)


@contextmanager
def _set_aside(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Keeps what ``.grad`` holds already from being averaged once more; after an error, it is all that is there."""
    before = {leaf: leaf.grad for leaf in leaves}
    for leaf in before:
        leaf.grad = None
    try:
        yield
    except BaseException:
        for leaf, grad in before.items():
            leaf.grad = grad
        raise
    for leaf, grad in before.items():
        if grad is not None:
            leaf.grad = added(leaf.grad, grad)
