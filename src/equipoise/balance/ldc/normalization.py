"""Losses made comparable before their discrepancy is looked at (appendix A.1 of the LDC-MTL paper)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["Normalization", "normalized", "reference"]

Normalization: TypeAlias = Literal["none", "rescale", "log"]


def reference(known: Tensor, losses: Tensor, entries: Tensor) -> Tensor:
    """The losses that the later ones are measured by: of each task the first that was seen.

    Args:
        known: ``[K]``, not a number where none was seen yet.
        losses: ``[k]``.
        entries: positions of these k tasks.
    """
    before = known[entries]
    # A first loss of zero says nothing about scale.
    first = torch.where(losses == 0, torch.ones_like(losses), losses.abs())
    known = known.clone()
    known[entries] = torch.where(before.isnan(), first, before)
    return known


def normalized(losses: Tensor, known: Tensor, how: Normalization) -> tuple[Tensor, Tensor]:
    """Normalised losses, and their derivatives by the losses.

    ``"rescale"`` is ℓ/ℓ', with ℓ' the task's first loss; ``"log"`` is log(ℓ/ℓ_0). The logarithm of a loss that is not
    positive does not exist and comes out as not a number.

    Example:
        >>> normalized(torch.tensor([4.0, 1.0]), torch.tensor([8.0, 1.0]), "rescale")
        (tensor([0.5000, 1.0000]), tensor([0.1250, 1.0000]))
    """
    if how == "none":
        return losses, torch.ones_like(losses)
    if how == "rescale":
        slopes = known.reciprocal()
        return losses * slopes, slopes
    positive = torch.where(losses > 0, losses, torch.nan)
    return (positive / known).log(), positive.reciprocal()
