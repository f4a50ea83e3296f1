"""Problem (A.32): min over α, ω of (‖ω − (1, α)‖², ‖ω − (2, α)‖²), where ω minimises ‖ω − α‖²."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.bilevel import BilevelProblem

__all__ = ["Synthetic"]


class Synthetic:
    """The problem at an initialisation, and how far its variables are from solving it.

    Args:
        alpha: α_0.
        omega: ω_0.
    """

    def __init__(self, alpha: float, omega: tuple[float, float]) -> None:
        self.alpha = torch.tensor(alpha, dtype=torch.float64)
        self.omega = torch.tensor(omega, dtype=torch.float64)
        self.problem = BilevelProblem(_lower, _upper, (self.alpha, self.omega), objectives=("one", "two"))

    def gap(self) -> float:
        """Distance of (α, ω) to the optimal set {(c, c, c): 1 ≤ c ≤ 2}."""
        point = torch.cat([self.alpha.detach().reshape(1), self.omega.detach()])
        return float((point - point.mean().clamp(1.0, 2.0)).norm())

    def constraint(self) -> float:
        """The exact q(z) = f(z) − min f = f(z)."""
        return float(_lower(self.alpha, self.omega, None).detach())

    def stationarity(self, weights: Tensor, multiplier: float) -> float:
        """𝒦(z) = ‖Σ λ_i ∇F_i + ν ∇q‖² with the exact ∇q."""
        variables = (self.alpha, self.omega)
        total = multiplier * _lower(*variables, None)
        total = total + sum(weight * value for weight, value in zip(weights.tolist(), _upper(*variables, None), strict=True))
        return float(torch.cat([piece.reshape(-1) for piece in torch.autograd.grad(total, variables)]).square().sum())


def _lower(alpha: Tensor, omega: Tensor, batch: None) -> Tensor:
    return (omega - alpha).square().sum()


def _upper(alpha: Tensor, omega: Tensor, batch: None) -> list[Tensor]:
    return [(omega - torch.stack([alpha.new_tensor(end), alpha])).square().sum() for end in (1.0, 2.0)]
