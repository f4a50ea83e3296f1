"""Directions of the features, sample by sample, from balancers that decide on them instead of on weights."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.autocast import without_autocast
from equipoise.balance.mixins import FeaturesObservation
from equipoise.engine.features import FeatureGradients
from equipoise.errors import InputError
from equipoise.step.context import Context
from equipoise.step.finite import as_tensor, check_losses, raise_nonfinite
from equipoise.step.seen import SeenLosses
from equipoise.step.source import Turn

__all__ = ["direct_features"]


def direct_features(context: Context, engine: FeatureGradients, turn: Turn, seen: SeenLosses) -> Tensor:
    """The balancer's direction ``[F]`` of the features, to be taken through the encoder in place of their gradient.

    The balancer sees what one process alone would see, its own samples and the gradients of its own losses; over several
    processes the encoder's gradients are averaged, as losses are.

    Args:
        context: tasks and checks.
        engine: its rows are the tasks' gradients of the features.
        turn: the step.
        seen: losses and in how many processes each task was.

    Raises:
        InputError: features in several tensors, a task that one of the processes lacks, or a direction of another shape.
        NonFiniteError: a loss or the direction is not finite.
    """
    present, means = seen.present, seen.means()
    names = context.names(present)
    if context.check_finite:
        check_losses(means, names, turn.step)
    count = context.processes.count
    features = engine.features
    if len(features) != 1:
        raise InputError(f"{turn.balancer!r} needs features in one tensor; the features module gave {len(features)}")
    for name, position in zip(names, present, strict=True):
        if seen.counts[position] != count:
            raise InputError(
                f'{turn.balancer!r} decides for every sample on its own and needs all tasks in every process; task "{name}" is '
                f"in {seen.counts[position]} of {count}"
            )
    rows = engine.rows
    if len(present) < len(rows):
        rows = rows[torch.tensor(list(present), device=rows.device)]
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
    with torch.no_grad(), without_autocast(rows.device):
        direction = as_tensor(turn.balancer.decide(observation), turn.balancer)
    if direction.shape != rows.shape[1:]:
        raise InputError(
            f"{type(turn.balancer).__name__} must answer with a direction of {rows.shape[1]} entries; "
            f"it gave the shape {list(direction.shape)}"
        )
    direction = direction.to(rows)
    if context.check_finite and not bool(torch.isfinite(direction).all()):
        raise_nonfinite("direction", names, turn.step, f" ({turn.balancer!r})")
    return direction if count == 1 and turn.scale is None else direction / factor
