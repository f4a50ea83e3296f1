"""The balancer's answer: what it is shown, and the checks of what it gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.double_sampling import CrossObservation
from equipoise.balance.mixins import ElsewhereObservation, LooksElsewhere
from equipoise.errors import InputError
from equipoise.modes import without_autocast
from equipoise.step.checking import check_losses, raise_nonfinite, which_finite
from equipoise.step.context import Context, Turn
from equipoise.step.crossing import Crossing

__all__ = ["as_answer", "decide_direction", "decide_weights"]


def decide_weights(
    context: Context,
    turn: Turn,
    present: Sequence[int],
    losses: Tensor | None,
    *,
    gramian: Tensor | None = None,
    crossing: Crossing | None = None,
) -> Tensor:
    """The balancer's weights ``[k]``, checked.

    Raises:
        InputError: the answer is not one weight for each task present.
        NonFiniteError: a loss or a weight is not finite.
    """
    names = context.names(present)
    if losses is not None and context.check_finite:
        check_losses(losses, names, turn.step)
    with torch.no_grad():
        weights = as_answer(turn.balancer.decide(_shown(context, turn, present, losses, gramian, crossing)), turn.balancer)
    if weights.shape != (len(present),):
        raise InputError(
            f"{type(turn.balancer).__name__} must answer with one weight for each of the {len(present)} tasks "
            f"present; it gave the shape {list(weights.shape)}"
        )
    if context.check_finite and weights.device.type == "cpu":
        _check_weights(turn, weights, names, losses)
    return weights


def decide_direction(context: Context, turn: Turn, observation: Observation) -> Tensor:
    """The balancer's direction ``[P]``, checked.

    Raises:
        InputError: the answer has another length.
        NonFiniteError: it is not finite.
    """
    rows = observation.gradients
    assert rows is not None
    with torch.no_grad(), without_autocast(rows.device):
        direction = as_answer(turn.balancer.decide(observation), turn.balancer)
    if direction.shape != rows.shape[1:]:
        raise InputError(
            f"{type(turn.balancer).__name__} must answer with a direction of {rows.shape[1]} entries; "
            f"it gave the shape {list(direction.shape)}"
        )
    direction = direction.to(rows)
    if context.check_finite and not bool(torch.isfinite(direction).all()):
        raise_nonfinite("direction", context.names(observation.present), turn.step, f" ({turn.balancer!r})")
    return direction


def _shown(
    context: Context,
    turn: Turn,
    present: Sequence[int],
    losses: Tensor | None,
    gramian: Tensor | None,
    crossing: Crossing | None,
) -> Observation:
    """What this balancer decides on."""
    common = (context.tasks.names, tuple(present), losses, gramian, None, turn.step, context.processes)
    if crossing is not None:
        return CrossObservation(*common, cross=crossing.products, crossed=crossing.present)
    if isinstance(turn.balancer, LooksElsewhere) and turn.balancer.looks_elsewhere:
        elsewhere = turn.source.elsewhere()
        if elsewhere is not None:
            return ElsewhereObservation(*common, elsewhere=elsewhere)
    return Observation(*common)


def _check_weights(turn: Turn, weights: Tensor, names: Sequence[str], losses: Tensor | None) -> None:
    finite = which_finite(weights)
    if all(finite):
        return
    bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
    detail = f" ({turn.balancer!r}"
    if losses is not None:
        pairs = zip(names, losses.tolist(), strict=True)
        detail += "; losses: " + ", ".join(f"{name} {loss:.4g}" for name, loss in pairs)
    raise_nonfinite("weight", bad, turn.step, detail + ")")


def as_answer(answer: object, balancer: object) -> Tensor:
    """A balancer's answer as a tensor; lists and arrays of numbers are welcome, too."""
    if isinstance(answer, Tensor):
        return answer
    try:
        return torch.as_tensor(answer, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{type(balancer).__name__} must answer with a tensor of numbers; it gave {type(answer).__name__}"
        ) from None
