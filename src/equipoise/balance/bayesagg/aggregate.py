"""One direction of the features from the tasks' random gradients."""

from __future__ import annotations

from torch import Tensor

__all__ = ["FLOOR", "aggregate"]

FLOOR = 1e-8
"""No variance counts as less, as in the released code."""


def aggregate(means: Tensor, variances: Tensor, powers: Tensor) -> Tensor:
    """Σ_k μ_k/v_k / Σ_k 1/v_k with v_k = max(Var_k, 1e-8)^power_k, for every sample and every feature by itself.

    Args:
        means: μ ``[k, N, m]``.
        variances: of the same shape.
        powers: ``[k]``; 0 for the plain mean over the tasks.

    Returns:
        ``[N, m]``, within the range of the means.

    Example:
        >>> import torch
        >>> aggregate(torch.tensor([[[0.0]], [[4.0]]]), torch.tensor([[[1.0]], [[3.0]]]), torch.ones(2))
        tensor([[1.]])
    """
    # Shares of the inverses by way of logarithms, so that no power can overflow.
    logarithms = -powers[:, None, None] * variances.clamp(min=FLOOR).log()
    return (logarithms.softmax(0) * means).sum(0)
