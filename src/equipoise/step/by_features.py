"""The way with gradients at a module's output: each head is differentiated once per task, the encoder once per step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.balance.base import Observation
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import FeaturesObservation, OnFeatures, PullsHeads, TakesFeatures
from equipoise.engine.features import FeatureGradients
from equipoise.errors import InputError
from equipoise.modes import without_autocast
from equipoise.step.checking import (
    check_gradients,
    check_losses,
    check_rows,
    looks_early,
    warn_of_nothing_shared,
    warn_of_zeros,
)
from equipoise.step.context import Context, Turn
from equipoise.step.deciding import decide_direction, decide_weights
from equipoise.step.report import StepReport
from equipoise.step.rows import task_seed, unscaled
from equipoise.step.seen import SeenLosses

__all__ = ["ByFeatures"]


class ByFeatures:
    """Balances the gradients of the features and takes the result through the encoder."""

    def __init__(self, context: Context, module: nn.Module) -> None:
        self.context = context
        self.engine = FeatureGradients(module)

    def run(self, turn: Turn) -> tuple[StepReport, Observation | None]:
        """Fills ``.grad``; says what happened and what the balancer may learn from."""
        context, engine = self.context, self.engine
        self._check(turn)
        seen = self._fill(turn)
        present, means = seen.present, seen.means()
        names = context.names(present)
        if not engine.features:
            return self._heads_alone(turn, seen), None
        # Every process holds other samples, so the inner products over the joint batch are the sum of theirs.
        gramian = context.processes.sum(engine.gramian(), "the Gramian").cpu()
        gramian = unscaled(gramian, torch.ones(len(present), device="cpu"), turn.scale)
        overflow = check_rows(turn, gramian.diagonal(), means, names)
        warn_of_zeros(context, gramian.diagonal())
        weights: Tensor | None = None
        direction: Tensor | None = None
        factors = torch.ones(len(present), dtype=torch.float64, device="cpu")
        if overflow or turn.balancer.needs == "gradients":
            if not overflow:
                direction = self._direction(turn, seen)
        else:
            weights = decide_weights(context, turn, present, means, gramian=gramian)
            factors = weights.double().cpu()
        with without_autocast(engine.rows.device):
            if direction is None:
                engine.deliver(factors)
            else:
                engine.deliver_direction(direction, factors)
        rows = None
        if isinstance(turn.balancer, OnFeatures) and not overflow:
            # For a balancer that learns from them once the step is taken.
            rows = engine.rows
            rows = rows if turn.scale is None else rows / turn.scale.to(rows)
        context.processes.sum_gradients(context.everything())
        check_gradients(context, turn, context.everything(), present)
        report = StepReport(names, means, weights, gramian, turn.step, skipped=overflow)
        return report, context.observation(turn, present, means, gramian, rows)

    def _heads_alone(self, turn: Turn, seen: SeenLosses) -> StepReport:
        """Nothing below the features is trained: the heads have their gradients, and there is nothing to balance."""
        context, names, means = self.context, self.context.names(seen.present), seen.means()
        if self.engine.contested:
            raise InputError(
                "nothing below the output of the features module is trained, but above it tasks share parameters, whose "
                "gradients would be balanced by those of nothing. Leave features= out"
            )
        warn_of_nothing_shared(context)
        if context.check_finite:
            check_losses(means, names, turn.step)
        self.engine.deliver(torch.ones(len(seen.present), device="cpu"))
        context.processes.sum_gradients(context.everything())
        check_gradients(context, turn, context.everything(), seen.present)
        return StepReport(names, means, step=turn.step)

    def _check(self, turn: Turn) -> None:
        """Refuses what gradients of features cannot serve."""
        balancer, own = turn.balancer, isinstance(turn.balancer, OnFeatures)
        if self.context.metric(balancer) is not None:
            raise InputError(
                f'metric="optimizer" weighs weights by their second moments, and features have none; leave metric= out of '
                f"{balancer!r}" + ("" if own else ", or features= of the optimizer")
            )
        if balancer.needs == "gradients" and not isinstance(balancer, OnFeatures | TakesFeatures):
            raise InputError(
                f"features= gives balancers the Gramian of the features; {balancer!r} needs the gradients themselves. "
                f"Leave features= out"
            )
        if isinstance(balancer, DoubleSampling):
            raise InputError(
                f"features= differentiates one batch per step; {balancer!r} looks at further ones. Leave features= out"
            )
        if isinstance(balancer, PullsHeads) and balancer.pulls:
            raise InputError(
                f"{balancer!r} weighs the gradients of the shared parameters, which features= of the optimizer does not "
                f"take; the balancer has an option features= of its own"
            )
        if turn.source.micro_batches > 1:
            raise InputError(
                f"{self._what(turn)} takes one batch per step: the encoder is differentiated after the weights are known, so "
                f"all micro-batches would have to be held" + ("" if own else ". Leave features= out to accumulate")
            )

    def _what(self, turn: Turn) -> str:
        """Who asked for gradients of features."""
        return repr(turn.balancer) if isinstance(turn.balancer, OnFeatures) else "features="

    def _fill(self, turn: Turn) -> SeenLosses:
        context, engine = self.context, self.engine
        with engine.recorder.recording():
            losses = context.named(turn.source.losses(0))
        if any(not isinstance(loss, Tensor) for loss in losses.values()):
            raise InputError(
                f"{self._what(turn)} needs losses that start from one evaluation of the features; losses given as callables "
                f"have inputs of their own" + ("" if isinstance(turn.balancer, OnFeatures) else ". Leave features= out")
            )
        values = {position: context.scalar(position, loss) for position, loss in losses.items()}
        seen = SeenLosses(values)
        if looks_early(context) and values and next(iter(values.values())).device.type == "cpu":
            check_losses(seen.means(), context.names(seen.present), turn.step)
        context.gather(seen)
        rows = {position: row for row, position in enumerate(seen.present)}
        engine.begin(len(rows), {rows[position]: value for position, value in values.items()}, context.parameters)
        real = isinstance(turn.balancer, OnFeatures) or turn.balancer.needs == "gradients"
        if real and any(tensor.is_complex() for tensor in engine.features):
            raise InputError(f"{turn.balancer!r} needs real features; the features module gives complex ones")
        for place, (position, value) in enumerate(values.items()):
            seed = task_seed(value, seen.counts[position], turn.scale)
            with without_autocast(value.device):
                engine.differentiate(rows[position], value, seed, retain_graph=place < len(values) - 1)
        return seen

    def _direction(self, turn: Turn, seen: SeenLosses) -> Tensor:
        """The balancer's direction ``[F]`` of the features, to be taken through the encoder in place of their gradient.

        The balancer sees what one process alone would see, its own samples and the gradients of its own losses; over several
        processes the encoder's gradients are averaged, as losses are.
        """
        context, balancer = self.context, turn.balancer
        present, means = seen.present, seen.means()
        names = context.names(present)
        if context.check_finite:
            check_losses(means, names, turn.step)
        count = context.processes.count
        features = self.engine.features
        if len(features) != 1:
            raise InputError(
                f"{balancer!r} needs features in one tensor; the losses use {len(features)} of the features module"
            )
        for name, position in zip(names, present, strict=True):
            if seen.counts[position] != count:
                raise InputError(
                    f'{balancer!r} decides for every sample on its own and needs all tasks in every process; task "{name}" is '
                    f"in {seen.counts[position]} of {count}"
                )
        rows = self.engine.rows
        factor = rows.new_full((), count) if turn.scale is None else count / turn.scale.to(rows)
        if count > 1 or turn.scale is not None:
            rows = rows * factor
        observation = FeaturesObservation(
            context.tasks.names,
            tuple(present),
            means,
            gradients=rows,
            step=turn.step,
            processes=context.processes,
            features=features[0],
            batch=turn.source.batch(0),
        )
        direction = decide_direction(context, turn, observation)
        return direction if count == 1 and turn.scale is None else direction / factor
