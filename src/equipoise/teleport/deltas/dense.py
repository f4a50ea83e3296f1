"""Dense: every entry of every shared parameter is free."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.teleport.deltas.base import Delta, DenseDifference, Difference

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense(Delta):
    """Δθ without any structure, for small models and toy problems; takes parameters of any shape.

    Example:
        >>> [tuple(factor.shape) for factor in Dense().adapt({"x": torch.ones(2)}, torch.Generator()).factors]
        [(2,)]
    """

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """Δ itself."""
        return DenseDifference(parameter)
