"""Upper and lower level of LDC-MTL in one number, and what it is differentiated to.

With normalised losses ℓ, shares σ and τ = σ or τ = 1, eq. 1 of the paper has the upper level
``f = Σ_i |τ_i ℓ_i − τ_{i+1} ℓ_{i+1}|`` over neighbouring tasks and the lower level ``g = Σ_i σ_i ℓ_i``. Both are piecewise
linear in ℓ and in σ, so that everything that training needs is K numbers; no graph is kept for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Total", "total"]


@dataclass(frozen=True)
class Total:
    """``upper_factor · f + lower_factor · g`` at one step.

    Attributes:
        upper: f, the discrepancy.
        lower: g, the weighted sum of the losses.
        by_losses: derivative of the total by the losses, ``[k]``.
        by_shares: derivative of the total by the shares, ``[k]``.
        lower_by_shares: derivative of g by the shares, ``[k]``.
    """

    upper: Tensor
    lower: Tensor
    by_losses: Tensor
    by_shares: Tensor
    lower_by_shares: Tensor


def total(
    losses: Tensor,
    shares: Tensor,
    *,
    upper_factor: float,
    lower_factor: float,
    weighted: bool,
    smooth: float = 0.0,
    divisor: Tensor | None = None,
) -> Total:
    """The total loss and its derivatives.

    Args:
        losses: normalised losses ``[k]`` of the tasks present, in their order.
        shares: their shares σ ``[k]``.
        upper_factor: of f.
        lower_factor: of g.
        weighted: τ = σ; otherwise τ = 1.
        smooth: γ of √(x² + γ), which takes the place of the absolute value; 0 for |x| (its derivative at 0 counts as 0).
        divisor: divides g; taken as a constant.

    Example:
        >>> found = total(torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]), upper_factor=1.0, lower_factor=2.0, weighted=True)
        >>> float(found.upper), float(found.lower), found.by_losses.tolist()
        (1.0, 2.0, [1.5, 0.5])
    """
    scaled = shares * losses if weighted else losses
    gaps = scaled[:-1] - scaled[1:]
    if smooth:
        sizes = (gaps.square() + smooth).sqrt()
        slopes = gaps / sizes
    else:
        sizes, slopes = gaps.abs(), gaps.sign()
    # Task i stands on the left of gap i and on the right of gap i − 1.
    upper_by_scaled = torch.zeros_like(losses)
    upper_by_scaled[:-1] = slopes
    upper_by_scaled[1:] -= slopes
    lower_by_losses, lower_by_shares = (shares, losses) if divisor is None else (shares / divisor, losses / divisor)
    by_losses = upper_factor * (upper_by_scaled * shares if weighted else upper_by_scaled) + lower_factor * lower_by_losses
    by_shares = lower_factor * lower_by_shares
    if weighted:
        by_shares = by_shares + upper_factor * upper_by_scaled * losses
    return Total(sizes.sum(), (lower_by_losses * losses).sum(), by_losses, by_shares, lower_by_shares)
