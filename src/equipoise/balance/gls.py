"""GLS: the geometric mean of the losses."""

from __future__ import annotations

from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers, cast_back
from equipoise.balance.registry import register
from equipoise.errors import InputError

__all__ = ["GLS"]


@register(
    "gls",
    summary="the geometric mean of the losses: `si` with a step that shrinks as the losses do",
    paper="Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy, CVPR Workshops 2019",
    aliases=("geometric",),
    price="1 backward",
    promise="minimises the geometric mean of the losses; the unit of a loss does not turn the direction",
    serves="losses on different scales, when the step should get smaller as they fall, which it does not with `si`",
    caveats="losses must be positive; a loss near 0 takes nearly all weight",
    adds_up_to="geometric over harmonic mean of the losses, at least 1",
    checked="reference implementation, autograd",
)
class GLS(LossBalancer):
    """Minimises (Π_k ℓ_k)^{1/k} over the k tasks present, whose gradient weighs task j by (Π_k ℓ_k)^{1/k} / (k ℓ_j).

    The geometric mean is taken through logarithms in float64, so products neither overflow nor vanish.

    **Mind.** Losses must be positive. One loss near 0 takes nearly all of the weight. If a few losses fall far, the step
    of all tasks shrinks. The units of a loss change the length of the step.

    Args:
        epsilon: added to every loss, so that a loss that reaches 0 keeps a finite weight. The paper has none; it also offers
            to square or repeat losses of focus, for which there is no option here.

    Raises:
        InputError: ``epsilon`` is negative.
        NonFiniteError: at a step, when a loss is negative: its geometric mean does not exist.

    Example:
        >>> import torch
        >>> GLS(epsilon=0.0).weights(torch.tensor([2.0, 8.0]))
        tensor([1.0000, 0.2500])
    """

    def __init__(self, epsilon: float = 1e-8) -> None:
        if not epsilon >= 0:
            raise InputError(f"epsilon must be at least 0; got {epsilon}")
        self.epsilon = epsilon

    def decide(self, observation: Observation) -> Tensor:
        """The gradient of the geometric mean of the losses present."""
        losses = observation.needed("losses")
        return self._slopes(losses).to(losses.dtype)

    def weights(self, losses: Tensor | ArrayLike) -> Tensor:
        """The gradient of the geometric mean for losses ``[K]``."""
        losses = as_numbers(losses, "the losses", 1)
        return cast_back(self._slopes(losses), losses)

    def _slopes(self, losses: Tensor) -> Tensor:
        logs = (losses.double() + self.epsilon).log()
        # The logarithm of a negative loss is not a number; the mean of the others lets the error name that task alone.
        return (logs.nanmean() - logs).exp() / len(losses)

    def __repr__(self) -> str:
        return f"GLS(epsilon={self.epsilon})"
