"""The linear heads of a model, and whether a task's loss is what one of them stands for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.balance.bayesagg.likelihoods import Likelihood
from equipoise.errors import InputError
from equipoise.modules import find_part

__all__ = ["find_head", "multiple_of", "parameters_of", "with_bias"]

_TOLERANCE = 0.02


def find_head(model: nn.Module, part: nn.Module | str, task: str) -> nn.Linear:
    """The linear head of a task. Raises InputError: the model has no such part, or it is no ``nn.Linear``."""
    found = find_part(model, part, f'the head of task "{task}"')
    if not isinstance(found, nn.Linear):
        raise InputError(
            f'BayesAggMTL needs heads that are nn.Linear on the shared features; that of task "{task}" is '
            f"{type(found).__name__}. Move its other layers into the features, or choose another method"
        )
    return found


def parameters_of(head: nn.Linear) -> Tensor:
    """W̃ ``[C, D]`` in float64: the weight, and the bias, if there is one, as its last column."""
    weight = head.weight.detach().double()
    return weight if head.bias is None else torch.cat([weight, head.bias.detach().double()[:, None]], 1)


def with_bias(features: Tensor, head: nn.Linear) -> Tensor:
    """h̃ ``[N, D]``: the features, and a 1 if the head has a bias."""
    return features if head.bias is None else torch.cat([features, features.new_ones(len(features), 1)], 1)


def multiple_of(
    task: str, head: nn.Linear, likelihood: Likelihood, inputs: Tensor, targets: Tensor, row: Tensor, epsilon: float
) -> float | None:
    """By what a task's loss is a multiple of the mean of ℓ over the samples, read off its gradient of the features.

    Args:
        task: its name.
        head: its head.
        likelihood: of its targets.
        inputs: h̃ ``[N, D]`` in float64.
        targets: of the N samples.
        row: gradient of the task's loss by the features ``[N, m]``.
        epsilon: rounding unit of the features' dtype.

    Returns:
        ``None`` where the gradient vanishes, up to rounding, so that nothing can be read off.

    Raises:
        InputError: the loss is no multiple: another function, other targets, or something between features and head.
    """
    weights = parameters_of(head)
    outputs = weights @ inputs.T
    weight = weights[:, : head.in_features]
    expected = likelihood.residual(outputs, targets).T @ weight / len(inputs)
    rounding = 64 * epsilon * float((likelihood.magnitude(outputs, targets).T @ weight.abs() / len(inputs)).norm())
    size = float(expected.norm())
    # Twenty times what may be rounding: below that the quotient would mean nothing.
    if not size > 20 * rounding:
        return None
    row = row.double()
    multiple = float((row * expected).sum()) / size**2
    off = float((row - multiple * expected).norm())
    if not (multiple > 0 and off <= _TOLERANCE * float(row.norm()) + multiple * rounding):
        apart = 100 * off / max(float(row.norm()), 1e-300) if multiple > 0 else 100.0
        raise InputError(
            f'the loss of task "{task}" is not a positive multiple of {likelihood.called} of its head on the features against '
            f"its targets: its gradient by the features is off by {apart:.2g} %. BayesAggMTL takes floating-point targets for "
            "squared errors, integers for classes and booleans for yes-or-no answers, and knows no other losses"
        )
    return multiple
