"""The losses of dense prediction, as MTAN trains its networks: over the pixels for which there is a target."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["depth_loss", "normal_loss", "semantic_loss"]


def semantic_loss(prediction: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy: mean over pixels of −log p(class).

    Args:
        prediction: log-probabilities ``[N, C, H, W]``.
        label: ``[N, H, W]``; −1 is left out.

    Example:
        >>> import torch
        >>> even = torch.full((1, 4, 1, 2), 0.25).log()
        >>> round(float(semantic_loss(even, torch.tensor([[[3, -1]]])).exp()), 4)
        4.0
    """
    # The mean over no pixels is no number; a batch without labels has nothing to say.
    valid = (label >= 0).sum().clamp(min=1)
    return F.nll_loss(prediction, label, ignore_index=-1, reduction="sum") / valid


def depth_loss(prediction: Tensor, depth: Tensor) -> Tensor:
    """Mean of the absolute difference over the pixels with a depth above 0; both ``[N, 1, H, W]``."""
    valid = depth > 0
    return ((prediction - depth).abs() * valid).sum() / valid.sum().clamp(min=1)


def normal_loss(prediction: Tensor, normal: Tensor) -> Tensor:
    """1 − mean of the cosine between the two over the pixels that have a normal; both ``[N, 3, H, W]``, of length 1."""
    valid = (normal != 0).any(1)
    return 1 - ((prediction * normal).sum(1) * valid).sum() / valid.sum().clamp(min=1)
