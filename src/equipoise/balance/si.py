"""Scale-invariant weighting: the sum of the logarithms of the losses."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers, cast_back
from equipoise.balance.registry import register
from equipoise.errors import InputError

__all__ = ["SI"]


@register(
    "si",
    summary="sum of log losses: the same whatever the units of each loss",
    paper="baseline of Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022",
    aliases=("scale-invariant", "log"),
    price="1 backward",
    promise="minimises the sum of log losses; the units of a loss do not matter",
    serves="losses on different scales that all can come near 0",
    caveats="losses must be positive; a loss near 0 gets a very large weight",
    adds_up_to="the sum of 1/loss",
    checked="closed form",
)
class SI(LossBalancer):
    """Minimises Σ_k log ℓ_k, whose gradient weighs task k by 1/ℓ_k.

    This is also the loss part of DB-MTL by itself (:class:`~equipoise.DBMTL`), with the same ε.

    **Mind.** Losses must be positive. A loss near 0 gets a very large weight. Adding a constant to a loss changes its weight.

    Args:
        epsilon: added to every loss, so that a loss that reaches 0 keeps a finite weight.

    Raises:
        InputError: ``epsilon`` is negative.
        NonFiniteError: at a step, when a loss is negative: its logarithm does not exist.

    Example:
        >>> SI(epsilon=0.0).weights(torch.tensor([2.0, 8.0]))
        tensor([0.5000, 0.1250])
    """

    def __init__(self, epsilon: float = 1e-8) -> None:
        if not epsilon >= 0:
            raise InputError(f"epsilon must be at least 0; got {epsilon}")
        self.epsilon = epsilon

    def decide(self, observation: Observation) -> Tensor:
        """1/(ℓ_k + ε) of the tasks present."""
        return self._slopes(observation.needed("losses"))

    def weights(self, losses: Tensor | ArrayLike) -> Tensor:
        """1/(ℓ_k + ε) for losses ``[K]``."""
        losses = as_numbers(losses, "the losses", 1)
        # Half precision has no room for ε, nor for the inverse of a small loss.
        return cast_back(self._slopes(losses.to(torch.promote_types(losses.dtype, torch.float32))), losses)

    def _slopes(self, losses: Tensor) -> Tensor:
        shifted = losses + self.epsilon
        return torch.where(shifted > 0, shifted.reciprocal(), torch.nan)

    def __repr__(self) -> str:
        return f"SI(epsilon={self.epsilon})"
