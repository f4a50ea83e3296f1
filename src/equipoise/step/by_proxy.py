"""The way with a proxy Gramian: heads once, a few shared weights per task, the rest once with the weighted gradients."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import OnFeatures, Perturbing, PullsHeads, TakesFeatures
from equipoise.engine.heads import numbered_in_order
from equipoise.errors import InputError
from equipoise.modes import without_autocast
from equipoise.proxy import Proxy
from equipoise.step.checking import (
    check_gradients,
    check_losses,
    check_rows,
    looks_early,
    warn_of_nothing_shared,
    warn_of_zeros,
)
from equipoise.step.context import Context, Turn
from equipoise.step.finding import check_alike, find_shared
from equipoise.step.proxying import Estimate, HeadGradients
from equipoise.step.report import StepReport
from equipoise.step.rows import unscaled
from equipoise.step.seen import SeenLosses
from equipoise.tasks import Loss

__all__ = ["STREAMED", "ByProxy", "check_proxied"]

STREAMED = 'memory="streamed"'


class ByProxy:
    """Weighs the tasks by a proxy Gramian, or the streamed exact one, and takes their weighted gradients through the encoder.

    Args:
        context: tasks and parameters.
        proxy: where the Gramian comes from; ``None`` for the exact one, which is streamed.
    """

    def __init__(self, context: Context, proxy: Proxy | None) -> None:
        self.context = context
        self.proxy = Proxy("exact") if proxy is None else proxy
        self._streamed = proxy is None
        self._ranked: bool | None = True if proxy is None else None

    def run(self, turn: Turn) -> tuple[StepReport, Observation | None]:
        """Fills ``.grad``; says what happened and what the balancer may learn from."""
        context, source = self.context, turn.source
        check_proxied(turn.balancer, STREAMED if self._streamed else "proxy=")
        if self._streamed and (source.micro_batches > 1 or context.processes.count > 1):
            raise InputError(
                f"{STREAMED} lets go of the rows of a block before the next one is differentiated, so nothing can be added "
                f"to them from {'other micro-batches' if source.micro_batches > 1 else 'other processes'}: "
                f"{'give one batch per step' if source.micro_batches > 1 else 'train on one process'}, or leave memory= out"
            )
        first = context.named(source.losses(0))
        if self._streamed:
            # All in one graph: the rows of a block are those of all tasks.
            first = {position: context.scalar(position, loss) for position, loss in first.items()}
        find_shared(context, first, source)
        check_alike(context, [*context.shared.parameters, *context.others()])
        eager = {p: context.scalar(p, loss) for p, loss in first.items() if isinstance(loss, Tensor)}
        if looks_early(context) and eager and next(iter(eager.values())).device.type == "cpu":
            here = SeenLosses(eager)
            check_losses(here.means(), context.names(here.present), turn.step)
        again = source.micro_batches > 1 or len(eager) < len(first)
        metric = context.metric(turn.balancer)
        estimate = Estimate(context, self.proxy, whole=not again, metric=metric) if context.shared.parameters else None
        seen = SeenLosses()
        kept: HeadGradients | None = None
        # What is evaluated a second time, when the weights are known, draws the same random numbers then.
        with source.rehearsal() if again else nullcontext():
            for micro_batch in range(source.micro_batches):
                losses = first if micro_batch == 0 else context.named(source.rehearse(micro_batch))
                for group in self._groups(losses, eager if micro_batch == 0 else None):
                    for position, value in group.items():
                        seen.add(position, value)
                    evaluation = self._evaluation(group, turn)
                    own = micro_batch == 0 and group is eager
                    with without_autocast(next(iter(group.values())).device):
                        if estimate is not None:
                            estimate.add(evaluation, own=own)
                        elif own:
                            evaluation.differentiate({}, own=True)
                    if own:
                        kept = evaluation
        context.gather(seen)
        present, means = seen.present, seen.means()
        names = context.names(present)
        counts = [seen.counts[position] for position in present]
        if estimate is None:
            warn_of_nothing_shared(context)
            if context.check_finite:
                check_losses(means, names, turn.step)
            gramian, overflow = None, False
        else:
            estimate.finish(turn, present, counts)
            gramian = estimate.gramian
            overflow = check_rows(turn, gramian.diagonal(), means, names)
            warn_of_zeros(context, gramian.diagonal())
        weights, audit = torch.ones(len(present), dtype=torch.float64, device="cpu"), None
        if estimate is not None and not overflow:
            weights, audit = estimate.decide(turn, present, means)
            gramian = estimate.gramian  # with the proxy's memory and factor: what the balancer saw
        shares = dict(zip(present, (weights.double().cpu() / torch.tensor(counts, device="cpu")).tolist(), strict=True))
        plain = {position: 1.0 / count for position, count in zip(present, counts, strict=True)}
        for micro_batch in range(source.micro_batches):
            losses = first if micro_batch == 0 else context.named(source.losses(micro_batch))
            for group in self._groups(losses, eager if micro_batch == 0 else None):
                if micro_batch == 0 and group is eager and kept is not None:
                    self._deliver(kept, shares, plain)
                    kept = None
                    continue
                evaluation = self._evaluation(group, turn)
                with without_autocast(next(iter(group.values())).device):
                    evaluation.differentiate({}, own=True)
                self._deliver(evaluation, shares, plain)
        context.processes.sum_gradients(context.everything())
        check_gradients(context, turn, context.everything(), present)
        if estimate is None:
            return StepReport(names, means, step=turn.step), None
        report = StepReport(
            names,
            means,
            None if overflow else weights,
            gramian,
            turn.step,
            skipped=overflow,
            proxy=None if self._streamed else self.proxy.name,
            audit=audit,
        )
        return report, context.observation(turn, present, means, gramian)

    @property
    def estimates(self) -> bool:
        """Whether there is a proxy that looks elsewhere than at everything."""
        return not self._streamed and not self.proxy.choosing and self.proxy.name != "exact"

    def gramian(self, turn: Turn) -> tuple[Tensor, tuple[int, ...]]:
        """The Gramian ``[k, k]`` of the tasks present, and their positions; ``.grad`` and the proxy stay as they are.

        The proxy's, up to a factor; streamed, the exact one of a single batch.
        """
        if self._streamed:
            return self._streamed_gramian(turn)
        context, source = self.context, turn.source
        estimate: Estimate | None = None
        seen = SeenLosses()
        for micro_batch in range(source.micro_batches):
            losses = context.named(source.rehearse(micro_batch))
            if estimate is None:
                find_shared(context, losses, source)
                estimate = Estimate(context, self.proxy, exact=False)
            for group in self._groups(losses, None):
                for position, value in group.items():
                    seen.add(position, value)
                with without_autocast(next(iter(group.values())).device):
                    estimate.add(self._evaluation(group, turn), own=False, flows=False)
        context.gather(seen)
        assert estimate is not None
        estimate.finish(turn, seen.present, [seen.counts[position] for position in seen.present])
        return estimate.gramian, seen.present

    def _streamed_gramian(self, turn: Turn) -> tuple[Tensor, tuple[int, ...]]:
        context = self.context
        losses = context.named(turn.source.rehearse(0))
        values = {position: context.scalar(position, loss) for position, loss in losses.items()}
        find_shared(context, dict(values), turn.source)
        if not context.shared.parameters:
            warn_of_nothing_shared(context)
        evaluation = HeadGradients(values, self._seeds(values, turn), context.shared.parameters, ranked=True)
        with without_autocast(next(iter(values.values())).device):
            found = evaluation.exact_gramian(context.shared.parameters)
        if context.shared.parameters:
            warn_of_zeros(context, found.diagonal())
        order = torch.tensor(sorted(range(len(values)), key=list(values).__getitem__), device="cpu")
        ones = torch.ones(len(values), dtype=torch.float64, device="cpu")
        return unscaled(found[order][:, order], ones, turn.scale), tuple(sorted(values))

    def _groups(self, losses: dict[int, Loss], eager: dict[int, Tensor] | None) -> list[dict[int, Tensor]]:
        """The losses that share one graph, then each callable alone; all are evaluated."""
        context = self.context
        if eager is None:
            eager = {p: context.scalar(p, loss) for p, loss in losses.items() if isinstance(loss, Tensor)}
        groups = [eager] if eager else []
        return groups + [
            {position: context.scalar(position, loss)} for position, loss in losses.items() if not isinstance(loss, Tensor)
        ]

    def _evaluation(self, losses: Mapping[int, Tensor], turn: Turn) -> HeadGradients:
        if self._ranked is None:
            self._ranked = not numbered_in_order(losses.values())
        context, seeds = self.context, self._seeds(losses, turn)
        evaluation = HeadGradients(losses, seeds, context.shared.parameters, ranked=self._ranked)
        if context.parameters or not context.shared.inputs:
            return evaluation
        # A task may take an input again above the cut that others take below.
        leaves = [*context.shared.parameters, *evaluation.cut.shared_leaves()]
        return HeadGradients(losses, seeds, leaves, ranked=self._ranked)

    @staticmethod
    def _seeds(losses: Mapping[int, Tensor], turn: Turn) -> dict[int, Tensor | None]:
        return {position: None if turn.scale is None else turn.scale.to(loss) for position, loss in losses.items()}

    def _deliver(self, evaluation: HeadGradients, shares: Mapping[int, float], plain: Mapping[int, float]) -> None:
        """The weighted gradients of what is shared, and each task's own ones as they are."""
        context = self.context
        device = next(iter(evaluation.cut.losses.values())).device
        with without_autocast(device):
            evaluation.deliver_own(plain, among=context.parameters)
            others = context.shared.undeclared
            if not context.parameters and context.shared.inputs:
                # Inputs that require grad have their ordinary gradient.
                ids = {id(leaf) for leaf in context.shared.parameters}
                others = [leaf for leaf in evaluation.cut.shared_leaves() if id(leaf) not in ids]
            if others:
                edges, gradients = evaluation.weighted(plain)
                torch.autograd.backward(edges, gradients, inputs=others, retain_graph=True)
            if context.shared.parameters:
                edges, gradients = evaluation.weighted(shares)
                torch.autograd.backward(edges, gradients, inputs=context.shared.parameters)


def check_proxied(balancer: object, what: str) -> None:
    """Refuses balancers that a proxy Gramian cannot serve."""
    needs = getattr(balancer, "needs", "losses")
    if needs == "gradients":
        instead = ", or give MultiTaskOptimizer features=, at which it acts at that price" * isinstance(balancer, TakesFeatures)
        raise InputError(
            f"{what} gives inner products of task gradients alone; {balancer!r} needs the gradients themselves. Leave {what} "
            f"out{instead}"
        )
    if isinstance(balancer, DoubleSampling):
        raise InputError(f"{what} looks at one batch per step; {balancer!r} looks at further ones. Leave {what} out")
    if isinstance(balancer, OnFeatures | Perturbing) or (isinstance(balancer, PullsHeads) and balancer.pulls):
        raise InputError(f"{balancer!r} acts on gradients that {what} does not form. Leave {what} out")
