"""What the deltas of a given rank have in common."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.teleport.checks import check_whole
from equipoise.teleport.deltas.base import Delta, DenseDifference, Difference, matrix_shape

__all__ = ["RankedDelta"]


@dataclass(frozen=True)
class RankedDelta(Delta):
    """A delta made of factors of a given rank, scaled by ``alpha / rank`` as in PEFT.

    Args:
        rank: of the factors; a weight that is smaller gets its own full rank.
        alpha: the numerator of the scale; PEFT's default is 8.
        vectors: adapt one-dimensional parameters (biases, norm layers) as well, densely.

    Raises:
        InputError: a rank below 1, or an ``alpha`` that is not positive.
    """

    rank: int = 5
    alpha: float = 8.0
    vectors: bool = False

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, 1)
        if not self.alpha > 0:
            raise InputError(f"alpha must be positive; got {self.alpha}")

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied with."""
        return self.alpha / self.rank

    def fitting(self, rows: int, columns: int) -> int:
        """The rank for a weight of this size."""
        return min(self.rank, rows, columns)

    def limited(self, parameters: Mapping[str, Tensor]) -> Self:
        """The same with a rank that is at most that of the largest weight."""
        largest = [min(matrix_shape(parameter)) for parameter in parameters.values() if parameter.dim() >= 2]
        return dataclasses.replace(self, rank=min(self.rank, max(largest, default=self.rank)))

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuses a rank that is larger than every weight: nothing about it would be low."""
        largest = [min(matrix_shape(parameter)) for parameter in parameters.values() if parameter.dim() >= 2]
        if largest and self.rank > max(largest):
            raise InputError(
                f"{type(self).__name__}(rank={self.rank}) is larger than every shared weight: the largest has rank "
                f"{max(largest)}. Choose a smaller rank, or delta=Dense() for all entries"
            )

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """Factors for a weight; for a vector a dense Δ, if vectors are adapted at all."""
        if parameter.dim() < 2:
            return DenseDifference(parameter) if self.vectors else None
        return self.factorized(parameter, generator)

    @abstractmethod
    def factorized(self, parameter: Tensor, generator: torch.Generator) -> Difference:
        """Factors for a weight of two or more dimensions."""
