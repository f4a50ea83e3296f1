"""Bilevel problems with known answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.bilevel import BilevelProblem

DOUBLE = torch.float64


def synthetic(alpha: float, omega: tuple[float, float]) -> tuple[Tensor, Tensor, BilevelProblem]:
    """Problem A.32 of the thesis: optimal where α = ω_1 = ω_2 lies in [1, 2]."""
    upper = torch.tensor(alpha, dtype=DOUBLE)
    lower = torch.tensor(omega, dtype=DOUBLE)

    def objectives(alpha: Tensor, omega: Tensor, batch: None) -> list[Tensor]:
        return [(omega - torch.stack([alpha.new_tensor(end), alpha])).square().sum() for end in (1.0, 2.0)]

    problem = BilevelProblem(lambda alpha, omega, batch: (omega - alpha).square().sum(), objectives, (upper, lower))
    return upper, lower, problem


def distance_to_optimal(alpha: Tensor, omega: Tensor) -> float:
    """Euclidean distance to the optimal set of :func:`synthetic`."""
    alpha, omega = alpha.detach(), omega.detach()
    nearest = ((alpha + omega.sum()) / 3).clamp(1, 2)
    return float(((alpha - nearest) ** 2 + (omega - nearest).square().sum()).sqrt())


class Quadratic:
    """f = ½ωᵀAω − ωᵀ(Bα + b) and F_i = ½‖ω − t_i‖² + c_iᵀα, for which everything is known."""

    def __init__(self, seed: int = 0, objectives: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=DOUBLE)

        factor = draw(4, 4)
        self.a = factor @ factor.T / 4 + torch.eye(4, dtype=DOUBLE)
        self.b = draw(4, 3)
        self.offset = draw(4)
        self.targets = draw(objectives, 4)
        self.slopes = draw(objectives, 3)
        self.alpha = draw(3)
        self.omega = draw(4)
        self.problem = BilevelProblem(self.lower, self.upper, (self.alpha, self.omega))

    def lower(self, alpha: Tensor, omega: Tensor, batch: object) -> Tensor:
        return 0.5 * omega @ self.a @ omega - omega @ (self.b @ alpha + self.offset)

    def upper(self, alpha: Tensor, omega: Tensor, batch: object) -> Tensor:
        return 0.5 * (omega - self.targets).square().sum(1) + self.slopes @ alpha

    def hypergradients(self, steps: int, lr: float) -> tuple[Tensor, Tensor]:
        """∇_α F_i(ω_T(α), α) and ω_T, from ω_T = Mᵀω_0 + η Σ Mᵗ (Bα + b), M = I − ηA."""
        with torch.no_grad():
            shrink = torch.eye(4, dtype=DOUBLE) - lr * self.a
            sums = sum((torch.linalg.matrix_power(shrink, t) for t in range(steps)), torch.zeros(4, 4, dtype=DOUBLE))
            jacobian = lr * sums @ self.b
            omega = torch.linalg.matrix_power(shrink, steps) @ self.omega + lr * sums @ (self.b @ self.alpha + self.offset)
            return (omega - self.targets) @ jacobian + self.slopes, omega


def small_network(seed: int = 0, dropout: float = 0.0) -> tuple[Tensor, nn.Module, BilevelProblem, Tensor]:
    """One weight per training sample, two objectives on validation data, a batch-normalised network below."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 5, generator=generator, dtype=DOUBLE)
    targets = torch.randn(12, 2, generator=generator, dtype=DOUBLE)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 2)).double()
    logits = torch.randn(8, generator=generator, dtype=DOUBLE)

    def lower(logits: Tensor, model: nn.Module, batch: Tensor) -> Tensor:
        errors = (model(inputs[batch]) - targets[batch]).square().mean(1)
        return (torch.sigmoid(logits[batch]) * errors).mean()

    def upper(logits: Tensor, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        errors = (model(inputs[batch]) - targets[batch]).square().mean(0)
        return {"first": errors[0], "second": errors[1] + 1e-3 * logits.square().sum()}

    return logits, model, BilevelProblem(lower, upper, (logits, model)), torch.arange(8, 12)
