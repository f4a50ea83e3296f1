"""Gaussians in natural parameters, where adding data is adding tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Gaussian"]

_JITTERS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6)


class Gaussian(NamedTuple):
    """B independent Gaussians over D numbers each, with density proportional to exp(−½ wᵀΛw + wᵀη).

    What a batch says of the parameters has the same form (it need not be a density by itself), so that a posterior is the sum
    of a prior and of what the batches say, in whatever order.

    Attributes:
        precision: Λ ``[B, D, D]``.
        shift: η = Λm ``[B, D, R]``; R columns for R means that have one precision in common.

    Example:
        >>> prior = Gaussian.spherical(2, 0.5, like=Gaussian(torch.zeros(1, 2, 2), torch.zeros(1, 2, 1)))
        >>> prior.precision[0].diagonal(), prior.mean()[0, :, 0]
        (tensor([2., 2.]), tensor([0., 0.]))
    """

    precision: Tensor
    shift: Tensor

    @staticmethod
    def spherical(size: int, variance: float, like: Gaussian) -> Gaussian:
        """N(0, ``variance``·I) over ``size`` numbers, in the shape of another."""
        identity = torch.eye(size, dtype=like.precision.dtype, device=like.precision.device)
        return Gaussian((identity / variance).expand_as(like.precision), torch.zeros_like(like.shift))

    def __add__(self, other: tuple[Tensor, ...]) -> Gaussian:  # type: ignore[override]
        """The product of the two densities."""
        precision, shift = other
        return Gaussian(self.precision + precision, self.shift + shift)

    def beside(self, other: tuple[Tensor, ...]) -> Gaussian:
        """Another one where this one is, which may have been saved on another device."""
        precision, shift = other
        return Gaussian(precision.to(self.precision.device), shift.to(self.shift.device))

    def factor(self) -> Tensor:
        """L with LLᵀ = Λ ``[B, D, D]``; not a number where Λ is not positive definite, far beyond rounding."""
        diagonal = self.precision.diagonal(dim1=-2, dim2=-1)
        for jitter in _JITTERS:
            # Relative to each entry of the diagonal, so that features of any size are treated alike.
            raised = self.precision + torch.diag_embed(jitter * diagonal) if jitter else self.precision
            factor: Tensor
            factor, info = torch.linalg.cholesky_ex(raised)
            if not bool(info.any()):
                return factor
        return torch.full_like(self.precision, torch.nan)

    def mean(self, factor: Tensor | None = None) -> Tensor:
        """The means m ``[B, D, R]``."""
        solution: Tensor = torch.cholesky_solve(self.shift, self.factor() if factor is None else factor)
        return solution

    def covariance(self, factor: Tensor | None = None) -> Tensor:
        """Λ⁻¹ ``[B, D, D]``."""
        inverse: Tensor = torch.cholesky_inverse(self.factor() if factor is None else factor)
        return inverse

    def draw(self, noise: Tensor) -> Tensor:
        """Draws ``[S, B, D]`` from standard normal numbers of that shape; one mean each (R = 1)."""
        factor = self.factor()
        spread: Tensor = torch.linalg.solve_triangular(factor.mT, noise.permute(1, 2, 0), upper=True)  # [B, D, S]
        return (self.mean(factor) + spread).permute(2, 0, 1)
