"""OFT: the weight's inputs are rotated, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.teleport.checks import check_whole
from equipoise.teleport.deltas.base import Delta, DenseDifference, Difference, matrix_shape, zeros

__all__ = ["OFT"]


@dataclass(frozen=True)
class OFT(Delta):
    """ΔW = W Rᵀ - W, R block-diagonal and orthogonal: R_b = (I - S_b)(I + S_b)⁻¹, S_b skew-symmetric (Qiu et al., 2023).

    Angles between the weight's rows stay as they are. S is zero at first, so R = I.

    Args:
        blocks: how many blocks the columns are cut into (PEFT's ``r``); where they cannot be cut into so many equal ones,
            the nearest number that divides them.
        vectors: adapt one-dimensional parameters as well, densely.

    Raises:
        InputError: fewer than one block.

    Example:
        >>> adaptation = OFT(blocks=2).adapt({"weight": torch.ones(4, 6)}, torch.Generator())
        >>> [tuple(factor.shape) for factor in adaptation.factors]  # two blocks of three columns: three angles each
        [(2, 3)]
    """

    blocks: int = 5
    vectors: bool = False

    def __post_init__(self) -> None:
        check_whole("blocks", self.blocks, 1)

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """Angles for a weight that can be rotated."""
        if parameter.dim() < 2:
            return DenseDifference(parameter) if self.vectors else None
        columns = matrix_shape(parameter)[1]
        # A block of one column has no angle.
        return _Rotation(parameter, _nearest_divisor(columns, self.blocks)) if columns > 1 else None

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuses so many blocks that no weight has two columns in one."""
        columns = [matrix_shape(parameter)[1] for parameter in parameters.values() if parameter.dim() >= 2]
        if columns and self.blocks >= max(columns):
            raise InputError(
                f"OFT(blocks={self.blocks}) cuts every shared weight into single columns, which cannot be rotated: the "
                f"widest has {max(columns)}. Choose fewer blocks"
            )


class _Rotation(Difference):
    def __init__(self, parameter: Tensor, blocks: int) -> None:
        self._weight = parameter.detach()
        rows, columns = matrix_shape(parameter)
        size = columns // blocks
        self._cut = (rows, blocks, size)
        self._upper = torch.triu_indices(size, size, 1, device=parameter.device)
        self.factors = (zeros(parameter, (blocks, size * (size - 1) // 2)),)

    def compute(self) -> Tensor:
        (angles,) = self.factors
        _, blocks, size = self._cut
        upper = angles.new_zeros(blocks, size, size)
        upper[:, self._upper[0], self._upper[1]] = angles
        skew = upper - upper.transpose(1, 2)
        identity = torch.eye(size, dtype=angles.dtype, device=angles.device)
        rotations = torch.linalg.solve(identity + skew, identity - skew, left=False)
        cut = self._weight.to(angles.dtype).reshape(self._cut)
        return (torch.einsum("rbi,boi->rbo", cut, rotations) - cut).reshape(self._weight.shape)


def _nearest_divisor(number: int, wanted: int) -> int:
    """The divisor nearest to a number, the smaller of two; never the number itself, for that leaves nothing to rotate."""
    divisors = [divisor for divisor in range(1, number) if number % divisor == 0]
    return min(divisors, key=lambda divisor: (abs(divisor - wanted), divisor))
