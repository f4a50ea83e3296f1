"""Linear scalarization: fixed weights, equal ones by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers
from equipoise.balance.per_task import PerTask, Preferring
from equipoise.balance.registry import register
from equipoise.errors import InputError

__all__ = ["LS"]


@register(
    "ls",
    summary="sum of the losses, each times a fixed weight (equal weighting by default)",
    paper="standard; see Caruana, Multitask Learning, 1997",
    aliases=("ew", "equal", "linear-scalarization", "weighted-ls"),
    price="1 backward",
    promise="minimises the sum of the losses, each times a fixed weight",
    serves="always, as the baseline; when you know good weights",
    caveats="the weights are yours to find; loud losses drown quiet ones",
    adds_up_to="the number of tasks present",
    checked="closed form",
    preference="weights: Σ p_k ℓ_k is minimised; on a concave front only its ends are reached",
)
class LS(Preferring, LossBalancer):
    """Minimises Σ_k w_k ℓ_k with fixed weights w.

    Args:
        weights: one non-negative number per task, in the tasks' order or by name; 1 for every task if left out, which is
            ``sum(losses).backward()``.
        preference: the same under the name that other methods have for it, so that Σ_k p_k ℓ_k is minimised.

    Raises:
        InputError: negative, non-finite, not one weight per task, or both are given.

    Example:
        >>> LS().weights(torch.tensor([2.0, 8.0]))
        tensor([1., 1.])
    """

    depends_on_losses = False

    def __init__(
        self,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        preference: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        if weights is not None and preference is not None:
            raise InputError("weights and preference are the same for fixed weights; give one of the two")
        self._weights = None if weights is None else PerTask("weights", weights, least=0)
        self.prefer(preference)

    @property
    def _fixed(self) -> PerTask | None:
        return self._weights if self.preference is None else self.preference

    def decide(self, observation: Observation) -> Tensor:
        """The fixed weights of the tasks present."""
        chosen = [1.0] * len(observation.present) if self._fixed is None else self._fixed.of_present(observation)
        return torch.tensor(chosen, dtype=torch.float64, device="cpu")

    def weights(self, losses: Tensor | ArrayLike) -> Tensor:
        """The fixed weights for losses ``[K]`` of all tasks."""
        losses = as_numbers(losses, "the losses", 1)
        if self._fixed is None:
            return torch.ones_like(losses)
        return losses.new_tensor(self._fixed.of_some((), range(len(losses))))

    def __repr__(self) -> str:
        word = "weights" if self.preference is None else "preference"
        return f"LS({'' if self._fixed is None else f'{word}={self._fixed}'})"
