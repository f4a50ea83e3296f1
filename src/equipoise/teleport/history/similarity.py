"""σ: how much of the history still holds."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

__all__ = ["similarity"]


def similarity(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Eq. 12 of the COST paper: σ = cos(Δθ, g'), over all pairs taken as one long vector.

    The sign is the paper's and the released code's: positive where the teleport goes *up* the last update's gradient.

    Args:
        pairs: Δθ and the combined gradient before the teleport, for each shared parameter that has a gradient.

    Returns:
        From -1 to 1; 0 where either of them vanishes.

    Example:
        >>> import torch
        >>> similarity([(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0]))])
        0.6
    """
    product = moved = gradient = 0.0
    for delta, grad in pairs:
        grad = grad.to_dense() if grad.is_sparse else grad
        own, other = delta.detach().to(grad.device).double().flatten(), grad.detach().double().flatten()
        # Added up as Python numbers in float64: the same on every process and every run.
        product += float(own @ other)
        moved += float(own @ own)
        gradient += float(other @ other)
    scale = (moved * gradient) ** 0.5
    return max(-1.0, min(1.0, product / scale)) if 0.0 < scale < float("inf") else 0.0
