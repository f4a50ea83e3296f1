"""The way with gradients at a module's output: each head is differentiated once per task, the encoder once per step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equipoise.autocast import without_autocast
from equipoise.balance.base import Observation
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import OnFeatures, PullsHeads
from equipoise.engine.features import FeatureGradients
from equipoise.errors import InputError
from equipoise.step.by_gradients import check_rows, select, task_seed, unscaled
from equipoise.step.context import Context
from equipoise.step.directing import direct_features
from equipoise.step.finite import check_losses
from equipoise.step.report import StepReport
from equipoise.step.seen import SeenLosses
from equipoise.step.source import Turn

__all__ = ["ByFeatures"]


class ByFeatures:
    """Balances the gradients of the features and takes the result through the encoder."""

    def __init__(self, context: Context, module: nn.Module) -> None:
        self.context = context
        self.engine = FeatureGradients(module)

    def run(self, turn: Turn) -> tuple[StepReport, Observation]:
        """Fills ``.grad``; says what happened and what the balancer may learn from."""
        context, engine = self.context, self.engine
        seen = self._fill(turn)
        present, means = seen.present, seen.means()
        names = context.names(present)
        # Every process holds other samples, so the inner products over the joint batch are the sum of theirs.
        gramian = select(context.processes.sum(engine.gramian()), present)
        gramian = unscaled(gramian, torch.ones(len(present)), turn.scale)
        overflow = check_rows(context, turn, gramian.diagonal(), means, names)
        full = torch.zeros(len(context.tasks), dtype=torch.float64)
        weights: Tensor | None = None
        direction: Tensor | None = None
        if overflow or turn.balancer.needs == "gradients":
            full += 1.0
            if not overflow:
                direction = direct_features(context, engine, turn, seen)
        else:
            weights = context.decide(turn, present, means, gramian=gramian)
            full[list(present)] = weights.double().cpu()
        with without_autocast(engine.rows.device):
            if direction is None:
                engine.deliver(full)
            else:
                engine.deliver_direction(direction, full)
        rows = self._rows(turn, present) if isinstance(turn.balancer, OnFeatures) and not overflow else None
        context.processes.sum_gradients(context.everything())
        context.check_gradients(turn, context.everything(), present)
        report = StepReport(names, means, weights, gramian, turn.step, skipped=overflow)
        return report, context.observation(turn, present, means, gramian, rows)

    def _fill(self, turn: Turn) -> SeenLosses:
        context, engine = self.context, self.engine
        own = isinstance(turn.balancer, OnFeatures)
        if turn.balancer.needs == "gradients" and not own:
            raise InputError(
                f"features= gives balancers the Gramian of the features; {turn.balancer!r} needs the gradients themselves. "
                f"Leave features= out"
            )
        if isinstance(turn.balancer, DoubleSampling):
            raise InputError(
                f"features= differentiates one batch per step; {turn.balancer!r} looks at further ones. Leave features= out"
            )
        if isinstance(turn.balancer, PullsHeads) and turn.balancer.pulls:
            raise InputError(
                f"{turn.balancer!r} weighs the gradients of the shared parameters, which features= of the optimizer does not "
                f"take; the balancer has an option features= of its own"
            )
        what = repr(turn.balancer) if own else "features="
        if turn.source.micro_batches > 1:
            raise InputError(
                f"{what} takes one batch per step: the encoder is differentiated after the weights are known, so all "
                f"micro-batches would have to be held" + ("" if own else ". Leave features= out to accumulate")
            )
        with engine.recorder.recording():
            losses = context.named(turn.source.losses(0))
        if any(not isinstance(loss, Tensor) for loss in losses.values()):
            raise InputError(
                f"{what} needs losses that start from one evaluation of the features; losses given as callables have inputs of "
                "their own" + ("" if own else ". Leave features= out")
            )
        values = {position: context.scalar(position, loss) for position, loss in losses.items()}
        seen = SeenLosses(values)
        if context.looks_early and next(iter(values.values())).device.type == "cpu":
            check_losses(seen.means(), context.names(seen.present), turn.step)
        context.gather(seen)
        engine.begin(len(context.tasks))
        engine.look_above(values)
        for place, (position, value) in enumerate(values.items()):
            seed = task_seed(value, seen.counts[position], turn.scale)
            with without_autocast(value.device):
                engine.differentiate(position, value, seed, retain_graph=place < len(values) - 1)
        return seen

    def _rows(self, turn: Turn, present: Sequence[int]) -> Tensor:
        """The gradients ``[k, F]`` of the tasks present, for a balancer that learns from them once the step is taken."""
        rows = self.engine.rows
        if len(present) < len(rows):
            rows = rows[torch.tensor(list(present), device=rows.device)]
        return rows if turn.scale is None else rows / turn.scale.to(rows)
