"""Another thing to seek: agreement of the task gradients themselves, which the Gramian gives exactly.

Sharpness is a stand-in for the gradient norm that needs first derivatives only. What a teleport is *for* is less conflict, and
that can be rewarded directly, for second derivatives of the losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["Agreement", "agreement", "check_agreement"]

Agreement: TypeAlias = Literal["mean", "smallest", "pairwise"]


def check_agreement(kind: str) -> None:
    """Refuses a kind that there is not."""
    if kind not in get_args(Agreement):
        raise InputError(f'agreement must be one of {", ".join(get_args(Agreement))}; got "{kind}"')


def agreement(losses: Mapping[str, Tensor], parameters: Sequence[Tensor], kind: Agreement) -> Tensor:
    """How well the task gradients agree, differentiable once more.

    Args:
        losses: task → loss, with their graphs.
        parameters: with respect to which the losses are differentiated: the shared ones.
        kind: ``"mean"`` cosine of the tasks with the mean gradient, the ``"smallest"`` of these cosines, or the mean
            ``"pairwise"`` cosine.

    Returns:
        A scalar from -1 to 1.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> losses = {"a": (x**2).sum(), "b": (x**3).sum()}
        >>> round(float(agreement(losses, [x], "pairwise").detach()), 3)
        0.976
    """
    rows = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, list(parameters), create_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
                    for gradient, parameter in zip(gradients, parameters, strict=True)
                ]
            )
        )
    stacked = torch.stack(rows)
    gram = stacked @ stacked.T
    # The root of a vanishing square has no derivative; such a task agrees with nobody.
    norms = gram.diagonal().clamp(min=1e-30).sqrt()
    if kind == "pairwise":
        cosines = gram / torch.outer(norms, norms)
        tasks = len(rows)
        return (cosines.sum() - cosines.diagonal().sum()) / max(tasks * (tasks - 1), 1)
    cosines = gram.mean(1) / (norms * gram.mean().clamp(min=1e-30).sqrt())
    return cosines.min() if kind == "smallest" else cosines.mean()
