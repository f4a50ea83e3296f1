"""PBI: penalty-based boundary intersection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.per_task import PerTask, Preferring
from equipoise.balance.registry import register
from equipoise.errors import InputError

__all__ = ["PBI"]

# Below this share of the losses' length their distance from the ray is rounding, and has no direction.
_NARROW = 1e-6


@register(
    "pbi",
    summary="the losses' length along the ray of the preference, plus a multiple of their distance from it",
    paper="Zhang and Li, MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition, IEEE TEVC 2007",
    price="1 backward",
    promise="for large `theta` ends on the ray where that meets the front, on concave fronts too",
    serves="a point of the front of one's choice at the price of one backward pass",
    caveats="a kink along the ray: large `theta` and steps swing about it; weights can be negative; units of a loss matter",
    adds_up_to="between 1 and √K on the ray; can be negative off it",
    checked="autograd, TorchJD",
    preference="ray: ℓ − z in the proportions of p, if `theta` is large enough",
)
class PBI(Preferring, LossBalancer):
    """Minimises d₁ + θ d₂, d₁ = p̂ᵀ(ℓ − z) and d₂ = ‖ℓ − z − d₁ p̂‖ with p̂ = p/‖p‖ (Zhang and Li, 2007, eq. 6).

    Task k weighs p̂_k + θ (ℓ − z − d₁ p̂)_k/d₂. On the ray, d₂ = 0, there is a kink, and the weights are p̂: d₂ is smoothed
    to √(d₂² + (1e-6 ‖ℓ − z‖)²), so that losses in other units have the same weights (TorchJD adds 1e-12, in their units). The
    paper's text was not available; this follows TorchJD.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; only ratios matter, equal if left out.
        theta: θ ≥ 0; 5 in the paper.
        ideal: z, losses that cannot be beaten, one for each task or one for all.

    Raises:
        InputError: θ is negative or not finite, or numbers do not fit the tasks.

    Example:
        >>> PBI([1.0, 1.0]).weights(torch.tensor([2.0, 2.0]))
        tensor([0.7071, 0.7071])
    """

    def __init__(
        self,
        preference: Sequence[float] | Mapping[str, float] | None = None,
        theta: float = 5.0,
        ideal: float | Sequence[float] | Mapping[str, float] = 0.0,
    ) -> None:
        if not 0 <= theta < float("inf"):
            raise InputError(f"theta must be finite and at least 0; got {theta}")
        self.theta = float(theta)
        self.ideal = PerTask("ideal", ideal)
        self.prefer(preference)

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        losses = observation.needed("losses").double()
        losses = losses - losses.new_tensor(self.ideal.of_present(observation))
        along = losses.new_tensor(self.shares(observation.tasks, observation.present))
        along = along / torch.linalg.vector_norm(along)
        length = torch.linalg.vector_norm(losses)
        unit = losses / torch.where(length > 0, length, 1.0)
        across = unit - torch.dot(along, unit) * along
        weights: Tensor = along + self.theta * across / (torch.dot(across, across) + _NARROW**2).sqrt()
        return weights

    def __repr__(self) -> str:
        ideal = [] if self.ideal.given == 0.0 else [f"ideal={self.ideal}"]
        return f"PBI({', '.join([*self._named(), f'theta={self.theta}', *ideal])})"
