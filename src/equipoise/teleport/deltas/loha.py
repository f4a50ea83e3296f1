"""LoHa: Δ is the entrywise product of two low-rank matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.teleport.deltas.base import Difference, fan_in_uniform, matrix_shape, zeros
from equipoise.teleport.deltas.ranks import RankedDelta

__all__ = ["LoHa"]


@dataclass(frozen=True)
class LoHa(RankedDelta):
    """ΔW = (alpha / rank) · (A₁ B₁) ⊙ (A₂ B₂), with B₂ zero at first (Hyeon-Woo et al., 2021: FedPara).

    Its rank can reach rank², at twice the factors of :class:`LowRank`.

    Args:
        rank: of each product.
        alpha: numerator of the scale.
        vectors: adapt one-dimensional parameters as well, densely.

    Example:
        >>> adaptation = LoHa(rank=2).adapt({"weight": torch.ones(4, 3)}, torch.Generator())
        >>> [tuple(factor.shape) for factor in adaptation.factors]
        [(4, 2), (2, 3), (4, 2), (2, 3)]
    """

    def factorized(self, parameter: Tensor, generator: torch.Generator) -> Difference:
        """A₁, B₁, A₂ and B₂."""
        return _HadamardProduct(parameter, self.fitting(*matrix_shape(parameter)), self.scale, generator)


class _HadamardProduct(Difference):
    def __init__(self, parameter: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        rows, columns = matrix_shape(parameter)
        self._shape = parameter.shape
        self._scale = scale
        self.factors = (
            fan_in_uniform(parameter, (rows, rank), generator),
            fan_in_uniform(parameter, (rank, columns), generator),
            fan_in_uniform(parameter, (rows, rank), generator),
            zeros(parameter, (rank, columns)),
        )

    def compute(self) -> Tensor:
        first_left, first_right, second_left, second_right = self.factors
        product = (first_left @ first_right) * (second_left @ (self._scale * second_right))
        return product.view(self._shape)
