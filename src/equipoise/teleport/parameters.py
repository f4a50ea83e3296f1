"""The shared parameters of a model under training: their names, and moving them there and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.teleport.history import similarity

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["gradient_similarity", "move", "restore", "shared_by_name"]


def shared_by_name(mtl: MultiTaskOptimizer) -> dict[str, Tensor]:
    """The shared parameters that are trained, by their names in the model.

    One that the torch optimizer does not hold has been frozen that way, and is not teleported either.

    Raises:
        InputError: there are none.
    """
    trained = {id(parameter) for group in mtl.optimizer.param_groups for parameter in group["params"]}
    ids = {id(parameter) for parameter in mtl.shared if parameter.requires_grad} & trained
    named = mtl.objective.model.named_parameters()
    found: dict[str, Tensor] = {name: parameter for name, parameter in named if id(parameter) in ids}
    if not found:
        raise InputError(
            "none of the shared parameters belongs to the objective's model and is trained, so there is nothing to teleport; "
            "make the objective with the module that holds them"
        )
    return found


@torch.no_grad()
def move(shared: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> None:
    """Adds Δθ in place."""
    for name, delta in deltas.items():
        shared[name].add_(delta)
    torch.clear_autocast_cache()  # casts made of other values must not be met again


@torch.no_grad()
def restore(shared: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Puts values back, to the bit."""
    for name, value in values.items():
        shared[name].copy_(value)
    torch.clear_autocast_cache()


def gradient_similarity(shared: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> float:
    """σ of eq. 12 over all shared parameters; one that is not adapted has moved by zero."""
    grads = {name: parameter.grad for name, parameter in shared.items() if parameter.grad is not None}
    return similarity(
        (deltas[name] if name in deltas else grad.new_zeros(()).expand(grad.shape), grad) for name, grad in grads.items()
    )
