"""History reuse (eq. 13) as a blend, applied just before an ordinary step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from equipoise.teleport.history.averages import Kind, gradient_seen, remembered

__all__ = ["blend"]


@torch.no_grad()
def blend(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], sigma: float) -> int:
    """Makes the optimizer's next step the one of eq. 13 of the COST paper, for some parameters only.

    One step with decays scaled by σ, ``m ← σβ m + (1 - σβ) g``, is an ordinary step after ``m ← σ m + (1 - σ) g``. A running
    maximum (Adamax) and a momentum buffer that is no mean (SGD, RMSprop) are scaled by σ, which does the same for them. The
    peak that ``amsgrad`` keeps is no moving average and stays. Step counters stay as well. The mean that centred RMSprop takes
    off its mean of squares is scaled by σ only: with the new gradient in both, as σ nears 0 the step would be divided by the
    variance of a single gradient, which is zero.

    Args:
        optimizer: whose state is changed in place; parameters without state are passed over.
        parameters: those that were teleported, with the gradient of the step to come in ``.grad``.
        sigma: share of the history to keep, from 0 to 1; below 0 counts as 0.

    Returns:
        How many buffers were changed.
    """
    sigma = min(max(sigma, 0.0), 1.0)
    kinds = remembered(optimizer)
    chosen = {id(parameter) for parameter in parameters}
    changed = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if id(parameter) not in chosen or not state or parameter.grad is None:
                continue
            touched = None
            if isinstance(optimizer, torch.optim.SparseAdam):
                # A step of it lets only those entries fade that the gradient holds.
                held = parameter.grad.coalesce()
                touched, gradient = tuple(held.indices()), held.values()
                gradient = -gradient if group.get("maximize", False) else gradient
            else:
                gradient = gradient_seen(optimizer, group, parameter)
            for name, kind in kinds.items():
                buffer = state.get(name)
                if not isinstance(buffer, Tensor) or kind is Kind.PEAK:
                    continue
                part = buffer if touched is None else buffer[touched]
                part.mul_(sigma)
                if kind is Kind.MEAN:
                    part.add_(gradient.to(buffer.dtype), alpha=1.0 - sigma)
                elif kind is Kind.MEAN_SQUARE:
                    part.add_(gradient.to(buffer.dtype).square(), alpha=1.0 - sigma)
                if touched is not None:
                    buffer[touched] = part
                changed += 1
    return changed
