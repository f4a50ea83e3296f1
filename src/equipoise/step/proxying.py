"""The weights of a step from a proxy Gramian, and the exact one now and then to audit it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from equipoise.engine.gramian import gramian as gramian_of
from equipoise.engine.heads import HeadCut, gradients_at
from equipoise.engine.proxy import Features, LastLayers, Places, ProxyRows, ProxySource
from equipoise.engine.reals import size
from equipoise.engine.shared import counted
from equipoise.engine.streamed import Streamed
from equipoise.errors import InputError, warn_once
from equipoise.proxy import Audit, Proxy
from equipoise.step.context import Context, Turn
from equipoise.step.deciding import decide_weights
from equipoise.step.metric import OptimizerMetric, line
from equipoise.step.rows import unscaled

__all__ = ["Estimate", "HeadGradients", "cosine"]

# Numbers of the tasks' gradients at the cut that are held at once whatever the size of the model: 16 MB in float32.
_HELD = 2**22


class HeadGradients:
    """One evaluation of the losses, differentiated down to where the tasks' graphs meet.

    Attributes:
        cut: where they meet.
        own: gradients of the leaves that one task alone reaches, by its position.

    Args:
        losses: by the position of their task.
        seeds: what each is multiplied with.
        shared: leaves that are known to be shared.
        ranked: see :class:`~equipoise.engine.heads.HeadCut`.
    """

    def __init__(
        self,
        losses: Mapping[int, Tensor],
        seeds: Mapping[int, Tensor | None],
        shared: Sequence[Tensor],
        *,
        ranked: bool = False,
    ) -> None:
        self.cut = HeadCut(losses, shared, ranked=ranked)
        self._seeds = dict(seeds)
        self.own: dict[int, list[Tensor | None]] = {}
        self._flows: list[dict[int, Tensor]] | None = None
        self._stacks: list[Tensor] | None = None
        size = self.cut.size
        limit = max(_HELD, sum(leaf.numel() for leaf in shared))
        self._at_once = max(1, limit // max(1, size))

    def differentiate(self, rows: Mapping[str, tuple[ProxyRows, Places]], *, own: bool, flows: bool = True) -> None:
        """Fills the rows of some proxies; with ``own`` also the gradients of what one task alone reaches.

        With ``flows`` what arrives at the cut is kept for what comes after; else it is computed only if the proxies need it.
        """
        tasks = list(self.cut.losses)
        at_cut = flows or any(ProxyRows.at_cut(self.cut, places) for _, places in rows.values())
        whole = len(tasks) <= self._at_once and at_cut
        for start in range(0, len(tasks), self._at_once):
            part = tasks[start : start + self._at_once]
            wanted = [edge for _, places in rows.values() for edge, _, _ in ProxyRows.above(self.cut, places)]
            found, gradients, caught = self.cut.differentiate(self._seeds, wanted, own=own, tasks=part, at_cut=at_cut)
            self.own.update(gradients)
            stacks = _side_by_side(found, part)
            if stacks is not None:
                found = [dict(zip(part, stack, strict=True)) for stack in stacks]
            for filled, places in rows.values():
                count = len(ProxyRows.above(self.cut, places))
                filled.add(self.cut, places, found, caught[:count], part, stacks)
                caught = caught[count:]
            if whole:
                self._flows, self._stacks = found, stacks

    def exact_rows(self, leaves: Sequence[Tensor]) -> Tensor:
        """The gradients ``[k, P]`` of leaves, one task after the other."""
        rows = []
        for position in self.cut.losses:
            if self._flows is not None:
                flows = self._flows
            else:
                flows = self.cut.differentiate(self._seeds, own=False, tasks=[position])[0]
            found = gradients_at(self.cut.edges, [flow.get(position) for flow in flows], leaves)
            rows.append(torch.cat([_flat(leaf, gradient) for leaf, gradient in zip(leaves, found, strict=True)]))
        return torch.stack(rows)

    def exact_gramian(self, leaves: Sequence[Tensor], metric: OptimizerMetric | None = None) -> Tensor:
        """The Gramian ``[k, k]`` of the tasks' gradients of leaves, in float64 on the CPU; nothing of K·P numbers is held."""
        cut, flows = self.cut, self._flows
        inverses = None if metric is None else metric.inverses(leaves)
        if flows is None and cut.size > sum(map(size, leaves)):
            return gramian_of(self.exact_rows(leaves), line(inverses)).cpu()
        if flows is None:
            flows = cut.differentiate(self._seeds, own=False)[0]
        return Streamed(cut, leaves, _HELD // len(cut.losses), inverses).gramian(flows)

    def weighted(self, weights: Mapping[int, float]) -> tuple[list[Tensor], list[Tensor]]:
        """Edges of the cut and the tasks' weighted gradients there, to be taken further down."""
        flows = self._flows
        if flows is not None and self._stacks is not None:
            edges = cast(list[Tensor], [GradientEdge(*edge) for edge in self.cut.edges])
            factors = [weights[position] for position in self.cut.losses]
            return edges, [_weighted_sum(factors, stack) for stack in self._stacks]
        if flows is None:
            seeds: dict[int, Tensor | None] = {}
            for position, loss in self.cut.losses.items():
                seed = self._seeds[position]
                seeds[position] = weights[position] * (torch.ones_like(loss) if seed is None else seed)
            flows, weights = self.cut.differentiate(seeds, own=False, summed=True)[0], {-1: 1.0}
        found = [
            (GradientEdge(*edge), _combined(flow, weights)) for edge, flow in zip(self.cut.edges, flows, strict=True) if flow
        ]
        return cast(list[Tensor], [edge for edge, _ in found]), [gradient for _, gradient in found]

    def reweighted(self, weights: Mapping[int, float], plain: Mapping[int, float]) -> Tensor:
        """Σ c_k ℓ_k, whose backward pass carries Σ w_k c_k g_k below the cut, and each task's c_k times its own above it.

        Args:
            weights: w, by the position of the task.
            plain: c.
        """
        passes: list[int] = []

        def scaled(entries: Sequence[tuple[int, int, int]]) -> Any:
            def hook(gradients: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...] | None:
                if torch._C._current_graph_task_id() not in passes[-1:]:  # somebody differentiates a loss itself
                    return None
                found = list(gradients)
                for slot, _, position in entries:
                    gradient = found[slot]
                    found[slot] = None if gradient is None else gradient * weights[position]
                return tuple(found)

            return hook

        # What a task's own operations hand to those below the cut is weighted, whatever else leads there.
        for node, entries in self.cut.feeds.items():
            node.register_hook(scaled(entries))
        met = {position for _, position in self.cut.seeded}
        factors = [plain[p] * (weights[p] if p in met else 1.0) for p in self.cut.losses]
        loss: Tensor = _Sum.apply(passes, factors, *self.cut.losses.values())
        return loss

    def deliver_own(self, factors: Mapping[int, float], among: Sequence[Tensor] = ()) -> None:
        """Adds to ``.grad`` of what one task alone reaches; only of some parameters, if any are given."""
        ids = {id(leaf) for leaf in among}
        taken: set[int] = set()
        for position, gradients in self.own.items():
            for leaf, gradient in zip(self.cut.own[position], gradients, strict=False):
                if gradient is None or (ids and id(leaf) not in ids):
                    continue
                gradient = gradient * factors[position] if factors[position] != 1.0 else gradient
                if leaf.grad is not None:
                    leaf.grad = leaf.grad + gradient
                    continue
                # What is expanded, or another leaf's gradient as well, must not be written to in place.
                mine = gradient.is_sparse or (gradient.is_contiguous() and gradient.data_ptr() not in taken)
                leaf.grad = gradient if mine else gradient.contiguous().clone()
                taken.add(0 if gradient.is_sparse else gradient.data_ptr())
        self.own = {}


class Estimate:
    """The weights of one step from a proxy, and from the exact Gramian where an audit is due.

    Args:
        context: tasks and parameters.
        proxy: where the Gramian comes from.
        exact: whether the exact Gramian can be formed at all.
        whole: whether one evaluation gives all losses.
        metric: that the Gramians are taken in. A proxy then looks at the weights of its layers one by one: of gradients of
            activations and of sketches there is no inner product in a metric of the weights.
    """

    def __init__(
        self, context: Context, proxy: Proxy, *, exact: bool = True, whole: bool = False, metric: OptimizerMetric | None = None
    ) -> None:
        self._metric = metric
        self.context = context
        self.proxy = proxy
        self._audits = exact and proxy.due(len(context.tasks))
        names = list(proxy.candidates()) if proxy.choosing and exact else [] if proxy.name == "exact" else [proxy.name]
        self._rows = {name: ProxyRows(proxy.columns, None if metric is None else metric.inverse) for name in names}
        # Gradients of several evaluations, or processes, are added up before they are multiplied.
        self._streams = whole and context.processes.count == 1
        self._exact: dict[int, Tensor] = {}
        self._product: Tensor | None = None
        self._gramians: dict[str, Tensor] = {}
        self._inverses: list[Tensor] | None = None
        self._truth: Tensor | None = None

    @property
    def gramian(self) -> Tensor:
        """The Gramian that decided, ``[k, k]``: the exact one where it was formed."""
        return self._truth if self._truth is not None else next(iter(self._gramians.values()))

    def add(self, evaluation: HeadGradients, *, own: bool, flows: bool = True) -> None:
        """Takes in one evaluation of the losses; ``flows`` as for :meth:`HeadGradients.differentiate`."""
        context, cut = self.context, evaluation.cut
        allowed = context.shared.parameters or None
        rows: dict[str, tuple[ProxyRows, Places]] = {}
        for name, filled in self._rows.items():
            source = self.proxy.look(name if isinstance(self.proxy.source, str) else None)
            assert source is not None
            try:
                places = source.places(cut, allowed)
            except InputError:
                if not self.proxy.choosing:
                    raise
                continue
            if self._metric is not None:
                if places.cut:
                    if self.proxy.choosing:
                        continue
                    raise InputError(
                        'metric="optimizer" weighs weights by their second moments, and activations have none; take '
                        'proxy="last", or leave metric= out'
                    )
                places = Places(leaves=list(dict.fromkeys(places.weights)))
            self._check(source, cut, places)
            if isinstance(source, LastLayers) and len(cut.losses) == len(context.tasks):
                source.pinned = places.weights
            rows[name] = (filled, places)
        evaluation.differentiate(rows, own=own, flows=flows or self._audits)
        for filled, _ in rows.values():
            filled.close()
        if self._audits:
            leaves = context.shared.parameters or counted(found := cut.shared_leaves(), found)
            if not leaves and context.processes.count == 1:
                self._audits = False  # one task alone shares nothing
                return
            if self._streams:
                self._product, self._positions = evaluation.exact_gramian(leaves, self._metric), list(cut.losses)
                return
            self._inverses = None if self._metric is None else self._metric.inverses(leaves)
            for position, row in zip(cut.losses, evaluation.exact_rows(leaves), strict=True):
                self._exact[position] = self._exact[position] + row if position in self._exact else row

    def _check(self, source: ProxySource, cut: HeadCut, places: Places) -> None:
        """Refuses places that another process would not take, or that an ordinary backward pass alone may touch.

        Raises:
            InputError: these are such.
        """
        context = self.context
        if context.wrappers.sharded and places.leaves:
            raise InputError(
                "the proxy would differentiate parameters, which are sharded (fully_shard); of linear maps and convolutions "
                'activations are enough, and of proxy="features"'
            )
        if context.processes.count == 1 or len(cut.losses) == len(context.tasks):
            return
        if isinstance(source, LastLayers) and not source.pinned and not context.shared.parameters:
            raise InputError(
                "a process whose first batch lacks tasks cannot tell what the tasks share; say it: shared=encoder, or "
                "proxy=… a module"
            )
        if isinstance(source, Features) and len(cut.losses) == 1:
            raise InputError('proxy="features" needs two tasks in the batch of each process, or all; use proxy="last"')

    def finish(self, turn: Turn, present: Sequence[int], counts: Sequence[int]) -> None:
        """Forms the Gramians of the tasks' mean gradients over all that was taken in, and over all processes."""
        processes = self.context.processes
        factors = 1.0 / torch.tensor(counts, dtype=torch.float64, device="cpu")
        for name, rows in self._rows.items():
            if rows.uneven and isinstance(self.proxy.look(name if isinstance(self.proxy.source, str) else None), LastLayers):
                warn_once(
                    self.context,
                    "uneven",
                    f'the layer that is "{name}" for all tasks of one evaluation is another one in the next (micro-batches or '
                    f"callables that lack tasks), and inner products between different layers are 0; name the module in proxy=",
                )
            if rows.filled or not self.proxy.choosing:
                self._gramians[name] = unscaled(rows.gramian(present, processes.sum), factors, turn.scale)
                unseen = [
                    self.context.tasks.names[p]
                    for p, zero in zip(present, (self._gramians[name].diagonal() == 0).tolist(), strict=True)
                    if zero
                ]
                if 0 < len(unseen) < len(present) and not self.proxy.choosing:
                    warn_once(
                        self.context,
                        "unseen",
                        f'the proxy "{name}" saw gradients that are exactly zero for {", ".join(unseen)} and not for others; '
                        f"unless their losses are flat, it looks at another task's head (entries of one vector of losses lead "
                        f"to all heads: give the losses that it was made of), so name a shared module in proxy=",
                    )
        if self._product is not None:
            order = torch.tensor([self._positions.index(position) for position in present], device="cpu")
            self._truth = unscaled(self._product[order][:, order], factors, turn.scale)
        elif self._audits:
            some = next(iter(self._exact.values()))
            stacked = torch.stack([self._exact.get(position, torch.zeros_like(some)) for position in present])
            self._exact = {}
            self._truth = unscaled(gramian_of(processes.sum(stacked), line(self._inverses)).cpu(), factors, turn.scale)

    def decide(self, turn: Turn, present: Sequence[int], losses: Tensor) -> tuple[Tensor, Audit | None]:
        """The balancer's weights ``[k]``, from the exact Gramian where there is one, and what it said of the proxy."""
        context, proxy = self.context, self.proxy

        def ask(gramian: Tensor) -> Tensor:
            return decide_weights(context, turn, present, losses, gramian=gramian)

        truth = self._truth
        if truth is None:
            (name,) = self._gramians
            self._gramians[name] = proxy.blend(self._gramians[name], present, len(context.tasks))
            return ask(self._gramians[name]), None
        # What a balancer keeps for its update must be of the answer that counts, so that is asked for last.
        balancer = turn.balancer
        state, kept = balancer.state_dict(), dict(vars(balancer))
        tried: dict[str, Tensor] = {}
        for name, gramian in self._gramians.items():
            tried[name] = ask(gramian)
            vars(balancer).clear()
            vars(balancer).update(kept)
            balancer.load_state_dict(state)
        exact = ask(truth)
        cosines = {name: cosine(truth, weights, exact) for name, weights in tried.items()}
        if proxy.choosing:
            proxy.tried({name: found[0] for name, found in cosines.items()})
            proxy.steps += 1
        if not cosines or proxy.name not in cosines:
            return exact, None
        name = proxy.name
        found = self._gramians[name]
        total = float(found.diagonal().sum())
        proxy.factor = float(truth.diagonal().sum()) / total if total > 0 else 1.0
        proxy.blend(found, present, len(context.tasks))
        audit = Audit(turn.step, name, *cosines[name])
        if audit.direction < proxy.at_least:
            instead = ""
            if proxy.fall_back:
                proxy.better()
                instead = f'; from now on "{proxy.name}"'
            warnings.warn(
                f'the direction of the proxy "{name}" has a cosine of {audit.direction:.2f} with the exact one in step '
                f'{turn.step}{instead}; more layers (proxy="last 2"), a module further down or proxy="exact" are nearer',
                stacklevel=2,
            )
        return exact, audit


class _Sum(torch.autograd.Function):
    """Σ c_k ℓ_k that remembers which backward pass it was last in."""

    @staticmethod
    def forward(ctx: Any, passes: list[int], factors: Sequence[float], *losses: Tensor) -> Tensor:
        ctx.passes, ctx.factors = passes, factors
        ctx.kinds = [(loss.dtype, loss.device) for loss in losses]
        return torch.stack([loss.to(losses[0].device) * f for f, loss in zip(factors, losses, strict=True)]).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.passes[:] = [torch._C._current_graph_task_id()]
        return (None, None, *((gradient * f).to(d, k) for f, (k, d) in zip(ctx.factors, ctx.kinds, strict=True)))


def _weighted_sum(factors: Sequence[float], stack: Tensor) -> Tensor:
    """Σ w_k g_k of gradients ``[k, …]``; in float32 at least, for half precision has no room for small weights."""
    half = stack.dtype in (torch.float16, torch.bfloat16)
    stretch = stack.float() if half else stack
    total: Tensor = torch.tensordot(torch.tensor(factors, dtype=stretch.dtype, device=stack.device), stretch, 1)
    return total.to(stack.dtype)


def _side_by_side(flows: Sequence[Mapping[int, Tensor]], tasks: Sequence[int]) -> list[Tensor] | None:
    """The tasks' gradients at each edge as one tensor ``[k, …]``; ``None`` if none, mostly zeros, or sparse."""
    if not flows:
        return None
    stacks: list[Tensor] = []
    for flow in flows:
        if 2 * len(flow) <= len(tasks) or any(gradient.is_sparse for gradient in flow.values()):
            return None
        zero = None if len(flow) == len(tasks) else torch.zeros_like(next(iter(flow.values())))
        stacks.append(torch.stack([flow.get(position, zero) for position in tasks]))  # type: ignore[arg-type]
    return stacks


def _combined(flow: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor:
    if len(flow) == 1:
        ((position, gradient),) = flow.items()
        return gradient * weights[position]
    gradients = list(flow.values())
    if any(gradient.is_sparse for gradient in gradients):
        total = gradients[0] * weights[next(iter(flow))]
        for position, gradient in list(flow.items())[1:]:
            total = total + gradient * weights[position]
        return total
    return _weighted_sum([weights[position] for position in flow], torch.stack(gradients))


def _flat(leaf: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        gradient = torch.zeros_like(leaf)
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    return (torch.view_as_real(gradient) if gradient.is_complex() else gradient).flatten()


def cosine(gramian: Tensor, ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Cosines between two directions ``wᵀG`` with the Gramian ``[k, k]``, and between the weights themselves."""
    one, two = ours.double().cpu(), theirs.double().cpu()

    def between(matrix: Tensor) -> float:
        lengths = float((one @ matrix @ one) * (two @ matrix @ two))
        return float(one @ matrix @ two) / lengths**0.5 if lengths > 0 else 1.0

    return between(gramian), between(torch.eye(len(one), dtype=torch.float64, device="cpu"))
