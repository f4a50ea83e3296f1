"""Sparse gradients, as embeddings give them: what is done to gradients, whether they are sparse or not."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

__all__ = ["added", "clip_gradients", "stored"]


def stored(gradient: Tensor) -> Tensor:
    """The entries of a gradient that are stored, each place once: of a coalesced one, the very memory."""
    if not gradient.is_sparse:
        return gradient
    return gradient.detach().coalesce()._values()


def added(before: Tensor | None, gradient: Tensor) -> Tensor:
    """Their sum. It is sparse if both are; only a dense tensor can have a sparse one added to it."""
    if before is None:
        return gradient
    return gradient + before if before.is_sparse and not gradient.is_sparse else before + gradient


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> None:
    """Clips the norm of all gradients together, as ``torch.nn.utils.clip_grad_norm_`` does for dense ones."""
    parameters = list(parameters)
    if not any(parameter.grad is not None and parameter.grad.is_sparse for parameter in parameters):
        clip_grad_norm_(parameters, limit)
        return
    entries = []
    for parameter in parameters:
        if parameter.grad is not None:
            # Places that are stored twice have to be added up before there is a norm.
            parameter.grad = parameter.grad.coalesce() if parameter.grad.is_sparse else parameter.grad
            entries.append(stored(parameter.grad))
    factor = (limit / (get_total_norm(entries) + 1e-6)).clamp(max=1.0)
    for values in entries:
        values.mul_(factor.to(values.device))
