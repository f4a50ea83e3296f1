"""LoRA: Δ is a product of two thin matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.teleport.deltas.base import Difference, fan_in_uniform, matrix_shape, zeros
from equipoise.teleport.deltas.ranks import RankedDelta

__all__ = ["LowRank"]


@dataclass(frozen=True)
class LowRank(RankedDelta):
    """ΔW = (alpha / rank) · B A, with B ``[rows, rank]`` zero at first and A ``[rank, columns]`` random (Hu et al., 2021).

    For any weight of two or more dimensions: linear, convolution, recurrent, embedding and graph layers. A weight is taken
    as a matrix of its first dimension by all others, so a convolution's A looks at whole patches, as in PEFT.

    Args:
        rank: 5 in the COST paper (appendix B.2).
        alpha: numerator of the scale.
        vectors: adapt one-dimensional parameters as well, densely.

    Example:
        >>> adaptation = LowRank(rank=2).adapt({"weight": torch.ones(4, 3)}, torch.Generator())
        >>> [tuple(factor.shape) for factor in adaptation.factors], float(adaptation.deltas()["weight"].detach().abs().max())
        ([(4, 2), (2, 3)], 0.0)
    """

    def factorized(self, parameter: Tensor, generator: torch.Generator) -> Difference:
        """B and A."""
        return _Product(parameter, self.fitting(*matrix_shape(parameter)), self.scale, generator)


class _Product(Difference):
    def __init__(self, parameter: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        rows, columns = matrix_shape(parameter)
        self._shape = parameter.shape
        self._scale = scale
        self.factors = (zeros(parameter, (rows, rank)), fan_in_uniform(parameter, (rank, columns), generator))

    def compute(self) -> Tensor:
        left, right = self.factors
        return (left @ (self._scale * right)).view(self._shape)
