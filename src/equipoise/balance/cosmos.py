"""COSMOS' scalarisation: a weighted sum, less the cosine between the losses and the preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.per_task import Preferring
from equipoise.balance.registry import register
from equipoise.errors import InputError

__all__ = ["COSMOS"]


@register(
    "cosmos",
    summary="a weighted sum of the losses, less a multiple of their cosine with the preference",
    paper="Ruchte and Grabocka, Scalable Pareto Front Approximation for Deep Multi-Objective Learning, ICDM 2021",
    price="1 backward",
    promise="the larger `penalty`, the closer the losses come to the ray of the preference",
    serves="a point of the front of one's choice at the price of one backward pass; models conditioned on preferences",
    caveats="the units of a loss matter; weights can be negative; a task that counts more has a larger loss along the ray",
    adds_up_to="near 1 for a small `penalty`; can be negative",
    checked="autograd, TorchJD",
    preference="ray: losses in the proportions of p, the nearer the larger `penalty`",
)
class COSMOS(Preferring, LossBalancer):
    """Minimises Σ_k p_k ℓ_k − λ cos(p, ℓ) (Ruchte and Grabocka, 2021, arXiv 2103.13392, eq. 5).

    Task k weighs p_k − λ (p_k/‖p‖ − cos(p, ℓ) ℓ_k/‖ℓ‖)/‖ℓ‖. The paper's other half, a model that takes p as a further input, is
    up to your model. Where all losses are 0 the cosine has no derivative, and the weights are p.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; divided by the sum over the tasks
            present, equal if left out.
        penalty: λ ≥ 0, in the units of the losses; the paper chooses it by data set, from 0.01 to 8.

    Raises:
        InputError: λ is negative or not finite, or preferences do not fit the tasks.

    Example:
        >>> COSMOS([0.5, 0.5], penalty=0.0).weights(torch.tensor([3.0, 1.0]))
        tensor([0.5000, 0.5000])
    """

    def __init__(self, preference: Sequence[float] | Mapping[str, float] | None = None, penalty: float = 1.0) -> None:
        if not 0 <= penalty < float("inf"):
            raise InputError(f"penalty must be finite and at least 0; got {penalty}")
        self.penalty = float(penalty)
        self.prefer(preference)

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        losses = observation.needed("losses").double()
        preference = losses.new_tensor(self.shares(observation.tasks, observation.present))
        length = torch.linalg.vector_norm(losses)
        length = torch.where(length > 0, length, torch.inf)
        unit, along = losses / length, preference / torch.linalg.vector_norm(preference)
        weights: Tensor = preference - self.penalty / length * (along - torch.dot(along, unit) * unit)
        return weights

    def __repr__(self) -> str:
        return f"COSMOS({', '.join([*self._named(), f'penalty={self.penalty}'])})"
