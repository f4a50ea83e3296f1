"""The balanced loss: one scalar in place of the sum, whose ordinary backward pass gives the balanced update."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError
from torch.utils.weak import WeakIdKeyDictionary

from equipoise.balance.base import Balancer
from equipoise.balance.coerce import for_one_call
from equipoise.balance.mixins import Accompanied, LooksElsewhere
from equipoise.distributed import Processes
from equipoise.engine.graph import hides_leaves, is_compiled
from equipoise.engine.heads import HeadCut, is_leaf
from equipoise.engine.shared import SharedParameters
from equipoise.errors import InputError
from equipoise.method import MethodSpec
from equipoise.modes import overwrites, without_autocast
from equipoise.proxy import Proxy, as_proxy, kept_source, same_source
from equipoise.step.by_proxy import check_proxied
from equipoise.step.checking import check_losses, check_rows
from equipoise.step.context import Context, Turn
from equipoise.step.deciding import decide_weights
from equipoise.step.metric import check_metric
from equipoise.step.proxying import Estimate, HeadGradients
from equipoise.step.report import StepReport
from equipoise.step.seen import SeenLosses
from equipoise.step.source import Given
from equipoise.tasks import Losses, Tasks, as_losses, read_fixed, scalar

__all__ = ["balanced_loss", "known_of"]


class _Known:
    """What a balancer and its losses have been through."""

    def __init__(self) -> None:
        self.context = Context(Tasks(), SharedParameters(), Processes(), (), True)
        self.steps = 0
        self._proxy: Proxy | None = None
        self._given: Any = None
        self._whose: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    def shared(self, cut: HeadCut) -> list[Tensor]:
        """What is not one task's alone among the leaves of an evaluation, as batches with all tasks told.

        Raises:
            InputError: this batch lacks tasks and none has held all, or one of its leaves was not among those.
        """
        if len(cut.losses) == len(self.context.tasks):
            common = cut.shared_leaves()
            ids = {id(leaf) for leaf in common}
            self._whose.update(dict.fromkeys(common, -1))
            alone = [(leaf, position) for position, found in cut.own.items() for leaf in found if id(leaf) not in ids]
            self._whose.update(alone)
            return common
        found = [(leaf, position) for position, leaves in cut.own.items() for leaf in leaves]
        if any(leaf not in self._whose for leaf, _ in found):
            raise InputError(
                'heads="own" has to tell what belongs to one task alone, and this batch lacks tasks: say what is shared, '
                "balanced_loss(…, shared=model.encoder), or begin with a batch that holds all tasks"
            )
        return [leaf for leaf, position in found if self._whose[leaf] != position]

    def proxy(self, given: Any, *, once: bool) -> Proxy:
        """The proxy, which is made anew only where another one is given; ``once``: it will not be asked for again."""
        given = kept_source(given)
        if self._proxy is None or not same_source(given, self._given):
            made = as_proxy(given) or Proxy("exact")
            if once and not isinstance(given, Proxy):
                if made.choosing:
                    raise InputError(
                        'proxy="auto" chooses in the first steps, so the balancer must outlive the step: make it once '
                        "before the loop, balancer = equipoise.balancer(…), and pass that"
                    )
                made.audit = made.audit or 0  # each would be the first
            made.attach(None)
            self._proxy, self._given = made, given
        return self._proxy


# A balancer that is used again keeps its tasks; both go when the balancer goes.
_known: dict[int, _Known] = {}


def known_of(balancer: Balancer) -> _Known:
    """What a balancer has been through in balanced losses: its tasks, and how many there were."""
    known = _known.get(id(balancer))
    if known is None:
        known = _known[id(balancer)] = _Known()
        weakref.finalize(balancer, _known.pop, id(balancer)).atexit = False
    return known


def balanced_loss(
    losses: Losses,
    balancer: Balancer | Any,
    proxy: Proxy | str | nn.Module | Iterable[Tensor] = "last",
    shared: nn.Module | Iterable[Tensor] | None = None,
    *,
    heads: Literal["weighted", "own"] = "weighted",
    tasks: Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    check_finite: bool = True,
) -> Tensor:
    """Σ_k w_k ℓ_k with the balancer's weights held constant: a scalar for your trainer's own backward pass.

    Nothing but ``loss = sum(losses.values())`` changes in a trainer: scaling, accumulation, clipping, distributed wrappers and
    automatic optimization do what they always do, for no ``.grad`` is touched here and no hook of a parameter fires. The
    balancer learns from the step as it is called. Balancers of the Gramian get a proxy (:class:`~equipoise.Proxy`), at about
    the price of plain training.

    Task-specific parameters get w_k times their gradient, as in most released codes. For Adam, which divides by the size of
    gradients, that is as good as nothing; with SGD it is a learning rate of their own, so balancers whose weights
    span decades want ``heads="own"`` there.

    Args:
        losses: mapping task → scalar, a sequence of scalars or a tensor ``[K]``. The first call fixes a balancer's tasks,
            unless they are declared; later ones may bring a subset, by name.
        balancer: kept by you from step to step, for many have a memory; or one that has none by name, as text or as a
            :class:`~equipoise.MethodSpec`.
        proxy: where the Gramian is taken: ``"last"``, ``"features"``, a module, parameters …, or a
            :class:`~equipoise.Proxy`, which you keep if it has a memory; ``"exact"`` for one backward pass per task.
        shared: a module or parameters among which to look; left out, all that the tasks have in common.
        heads: ``"own"`` gives task-specific parameters their own task's gradient instead: the weights then act where the
            tasks' graphs meet. Without ``shared`` the first batch must hold all tasks, and each that does is walked over as a
            whole to tell what is one task's alone.
        tasks: all tasks in their order, to declare them before the first batch that holds them all.
        fixed: losses among those given that are no tasks, and their weights λ, by name: ``{"kl": 0.1}``. No balancer sees them;
            λ times their values is added.
        check_finite: raise on losses and proxies that are not finite.

    Returns:
        The scalar. Its attribute ``report`` is the :class:`~equipoise.step.StepReport` of the decision.

    Raises:
        InputError: losses or a balancer that cannot be used this way; the message says what to use instead.
        UnknownTaskError: a task that the balancer's first call did not have.
        NonFiniteError: a loss or gradient that is not finite. The balancer is as before.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> balancer = __import__("equipoise").FairGrad()
        >>> out = model(torch.ones(5, 3))
        >>> loss = balanced_loss({"a": out[:, 0].square().mean(), "b": out[:, 1].square().mean()}, balancer)
        >>> loss.backward()
        >>> optimizer.step()
        >>> loss.report.tasks
        ('a', 'b')
    """
    if heads not in ("weighted", "own"):
        raise InputError(f'heads must be "weighted" or "own"; got {heads!r}')
    if fixed and heads == "own":
        raise InputError(
            'heads="own" scales what passes the cut, of losses with fixed weights, too; leave fixed= or heads= out'
        )
    chosen = for_one_call(balancer)
    check_proxied(chosen, "balanced_loss()")
    check_metric(chosen)
    if isinstance(chosen, LooksElsewhere) and chosen.looks_elsewhere:
        raise InputError(f"{chosen!r} evaluates the losses at other parameters; use MultiTaskOptimizer")
    known = known_of(chosen)
    context = known.context
    context.check_finite = check_finite
    context.tasks.check_declared(tasks)
    if shared is not None:
        context.shared = SharedParameters(shared)
        context.shared.parameters = [leaf for leaf in context.shared.declared if leaf.requires_grad]
    if not torch.is_grad_enabled():
        raise InputError("balanced_loss() balances gradients, and under no_grad() there are none; use the losses' sum there")
    _refuse_line_search()
    weights = read_fixed(fixed, context.tasks.names or tuple(tasks or ()))
    context.processes.step = f"balanced loss {known.steps}"
    with context.processes.together():
        losses, beside = _divided(losses, weights, check_finite, known.steps)
        loss = _balanced(known, chosen, losses, proxy, tasks, own=heads == "own", once=isinstance(balancer, str | MethodSpec))
    known.steps += 1
    if beside:
        report = replace(loss.report, fixed={name: value.detach() for name, (_, value) in beside.items()})  # type: ignore[attr-defined]
        for factor, value in beside.values():
            loss = loss + factor * value.to(loss.device)
        loss.report = report  # type: ignore[attr-defined]
    return loss


def _divided(
    losses: Losses, fixed: Mapping[str, float], check_finite: bool, step: int
) -> tuple[Losses, dict[str, tuple[float, Tensor]]]:
    """The losses that are balanced, and those with fixed weights."""
    if not fixed:
        return losses, {}
    if not isinstance(losses, Mapping):
        raise InputError("fixed= names some of the losses, so they must be a mapping from names")
    beside = {name: (factor, scalar(name, losses[name])) for name, factor in fixed.items() if name in losses}
    if check_finite and beside:
        check_losses(torch.stack([value.detach().double().cpu() for _, value in beside.values()]), list(beside), step)
    return {name: loss for name, loss in losses.items() if name not in beside}, beside


def _balanced(
    known: _Known, chosen: Balancer, losses: Losses, proxy: Any, declared: Sequence[str] | None, *, own: bool, once: bool
) -> Tensor:
    """The scalar; where it cannot be had, the balancer, its tasks and its proxy are as before."""
    context = known.context
    new = not context.tasks.known
    if new and declared is not None:
        context.tasks.fix(declared)
    try:
        return _weighed(known, chosen, losses, proxy, own, once)
    except BaseException:
        if new:
            context.forget_tasks()
        raise


def _weighed(known: _Known, chosen: Balancer, losses: Losses, proxy: Any, own: bool, once: bool) -> Tensor:
    context = known.context
    source = Given(as_losses(losses, context.tasks.names or None))
    given = source.losses(0)
    if any(not isinstance(loss, Tensor) for loss in given.values()):
        raise InputError("balanced_loss() needs losses that are evaluated; for callables use MultiTaskOptimizer or backward()")
    context.wrappers.survey(given)
    named = context.named(given)
    values = {p: scalar(context.tasks.names[p], loss) for p, loss in named.items()}
    if not values:
        raise InputError("no losses were given; in every process the batch must hold at least one task")
    seen = context.gather(SeenLosses(values))
    turn = Turn(chosen, source, known.steps)
    estimator = known.proxy(proxy, once=once) if chosen.needs != "losses" else None
    before = chosen.state_dict(), None if estimator is None else estimator.state_dict()
    try:
        with context.wrappers.unnoticed():
            weights, report, at_cut = _decide(known, turn, values, seen, estimator, own)
        companion = chosen.companion() if isinstance(chosen, Accompanied) else None
        chosen.update(context.observation(turn, seen.present, report.losses, report.gramian))
    except BaseException as error:
        chosen.load_state_dict(before[0])
        if estimator is not None and before[1] is not None:
            estimator.load_state_dict(before[1])
        _explain(error)
        raise
    # The trainer averages over the processes; a task's mean is over those that hold it.
    processes = context.processes.count
    factors = dict(zip(seen.present, weights.tolist(), strict=True))
    shares = {p: factors[p] * processes / seen.counts[p] for p in values}
    if at_cut is not None:
        plain = {p: processes / seen.counts[p] for p in values}
        loss = at_cut({p: shares[p] / plain[p] for p in values}, plain)
    else:
        device = next(iter(values.values())).device
        with without_autocast(device):
            stacked = [value * shares[position] for position, value in values.items()]
            loss = torch.stack([value.to(device) for value in stacked]).sum()
            if companion is not None:  # of value zero, for its gradient
                term = (companion.output * companion.seed.to(companion.output)).sum()
                loss = loss + (term - term.detach()).to(loss)
    loss.report = report  # type: ignore[attr-defined]
    return loss


AtCut = Callable[[Mapping[int, float], Mapping[int, float]], Tensor]


def _decide(
    known: _Known, turn: Turn, values: dict[int, Tensor], seen: SeenLosses, proxy: Proxy | None, own: bool
) -> tuple[Tensor, StepReport, AtCut | None]:
    """The weights ``[k]``, the report, and for ``heads="own"`` what makes the loss."""
    context = known.context
    present, means = seen.present, seen.means()
    names = context.names(present)
    if context.check_finite:
        check_losses(means, names, turn.step)
    if proxy is None:
        weights = decide_weights(context, turn, present, means)
        companion = turn.balancer.companion() if isinstance(turn.balancer, Accompanied) else None
        if companion is not None and companion.parameters:
            raise InputError(
                f"{turn.balancer!r} has a network whose gradients flow on into the model, which an ordinary backward pass of "
                f"one scalar cannot wait for; put its parameters() into your optimizer, or use MultiTaskOptimizer or backward()"
            )
        return weights, StepReport(names, means, weights.detach(), None, turn.step), None
    if context.wrappers.sharded and (context.shared.declared or not isinstance(proxy.source, str)):
        raise InputError(
            "what fully_shard has sharded cannot be found by its parameters; leave shared= out, and name the proxy, such as "
            'proxy="last" or "features"'
        )
    audits = _audited(context, proxy, values)
    evaluation = HeadGradients(values, dict.fromkeys(values), [*context.shared.parameters, *([] if own else proxy.named)])
    if own and not context.shared.declared:
        evaluation = HeadGradients(values, dict.fromkeys(values), known.shared(evaluation.cut))
    elif audits and not context.shared.declared:
        evaluation = HeadGradients(values, dict.fromkeys(values), evaluation.cut.shared_leaves())
    if context.wrappers.sharded and any(is_leaf(node) for node, _ in evaluation.cut.edges):
        raise InputError(
            "a gradient would be taken at a parameter, which is sharded (fully_shard): a process whose batch holds one task "
            'needs heads="weighted", and tasks have to meet at activations'
        )
    estimate = Estimate(context, proxy, exact=audits, whole=True)
    with without_autocast(next(iter(values.values())).device):
        estimate.add(evaluation, own=False, flows=False)
    counts = [seen.counts[position] for position in present]
    estimate.finish(turn, present, counts)
    check_rows(turn, estimate.gramian.diagonal(), means, names)
    weights, audit = estimate.decide(turn, present, means)
    report = StepReport(names, means, weights, estimate.gramian, turn.step, proxy=proxy.name, audit=audit)
    return weights, report, evaluation.reweighted if own and len(context.tasks) > 1 else None


def _audited(context: Context, proxy: Proxy, values: Mapping[int, Tensor]) -> bool:
    """Whether the exact Gramian may be formed.

    Raises:
        InputError: it was asked for, and cannot be.
    """
    asked = proxy.audit or proxy.name == "exact" or proxy.choosing
    if not proxy.due(len(context.tasks)) or (not asked and context.processes.count > 1):
        return False
    reason = ""
    if context.wrappers.sharded:
        reason = "the parameters are sharded (fully_shard), and differentiating them is left to the trainer"
    elif any(map(is_compiled, values.values())):
        reason = "a part of the model is compiled, and its backward pass can run but once"
    elif any(map(hides_leaves, values.values())):
        reason = "a checkpoint with use_reentrant=True hides what the tasks share"
    if reason and asked:
        raise InputError(f'{reason}, so balanced_loss() cannot form the exact Gramian; use proxy="last" without audits')
    return not reason


def _explain(error: BaseException) -> None:
    """Says what to do about what torch refuses in the midst of a backward pass."""
    if overwrites(error):
        raise InputError(
            "a part of the model that tasks' losses run through on their way to the proxy is compiled, and its backward pass "
            "can run but once; leave the heads and the last shared layer out of torch.compile"
        ) from error
    if isinstance(error, CheckpointError):
        raise InputError(
            "the inputs of the last shared layer lie in a checkpoint that cannot be run again before the backward pass (as "
            'under fully_shard in half precision); leave that layer out of the checkpoint, or use proxy="features"'
        ) from error
    if isinstance(error, RuntimeError) and "use_reentrant=True" in str(error):
        raise InputError(
            "a part of the model that tasks' losses run through on their way to the proxy is checkpointed with "
            "use_reentrant=True, which only an ordinary backward pass can enter; checkpoint with use_reentrant=False"
        ) from error


def _refuse_line_search() -> None:
    """Refuses closures of LBFGS, which compares losses that must have been weighted alike."""
    searching = inspect.unwrap(torch.optim.LBFGS.step).__code__
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is searching:
            raise InputError(
                "LBFGS compares a step's losses at several points, at each of which balanced_loss() would weigh them anew "
                "and teach the balancer; use MultiTaskOptimizer, whose balancer learns from a step's first evaluation alone"
            )
        frame = frame.f_back
