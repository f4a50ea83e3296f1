"""CR-MOGM: the weights of another method, averaged over steps."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.registry import register
from equipoise.balance.wrapping import Wrapping
from equipoise.errors import InputError

__all__ = ["CRMOGM"]


@register(
    "cr-mogm",
    summary="the weights of another method on the Gramian, averaged over steps",
    paper="Zhou et al., On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond, NeurIPS 2022",
    price="K backward, or what the other method costs",
    promise="less noise in the weights; with fixed ones, those of the other method",
    serves="small batches, with any method whose weights jump",
    caveats="the other method's promise holds on average only; weights lag behind",
    adds_up_to="what the other method's do",
    checked="equations, TorchJD",
)
class CRMOGM(Wrapping):
    """λ_t = α λ_{t−1} + (1 − α) λ̂_t, λ̂_t being another method's weights; the step is taken with λ_t (Zhou et al., 2022).

    The paper's text was not available; this follows TorchJD's ``CRMOGMWeighting``. The first weights of a task are those of the
    method. The paper lets α grow towards 1 as the learning rate fades (its Corollary 1): set ``alpha`` between steps.

    Args:
        balancer: any method on the Gramian, by its name or as an object; in text ``balancer=fairgrad(alpha=2)``. MGDA if left
            out.
        alpha: α, from 0 (none) to 1 (the first weights for good).

    Raises:
        InputError: α is out of range, or the balancer does more than weigh tasks by their Gramian.

    Example:
        >>> balancer = CRMOGM("upgrad", alpha=0.5)
        >>> for overlap in (0.0, -0.5):
        ...     seen = Observation(("a", "b"), (0, 1), gramian=torch.tensor([[1.0, overlap], [overlap, 1.0]]))
        ...     weights = balancer.decide(seen)
        ...     balancer.update(seen)
        >>> weights.tolist()
        [0.625, 0.625]
    """

    def __init__(self, balancer: GramianBalancer | str | None = None, alpha: float = 0.9) -> None:
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be from 0 to 1; got {alpha}")
        super().__init__(balancer)
        self.alpha = float(alpha)

    def decide(self, observation: Observation) -> Tensor:
        """The average of the weights ``[k]`` up to now, for the tasks present."""
        fresh = self.balancer.decide(observation).double().cpu()
        before, known = self.remembered(observation)
        self._decided = torch.where(known, self.alpha * before + (1 - self.alpha) * fresh, fresh)
        return self._decided

    def update(self, observation: Observation) -> None:
        """Keeps the average, and lets the balancer learn."""
        self.balancer.update(observation)
        self.keep(observation, self._decided)

    def __repr__(self) -> str:
        return f"CRMOGM({self.balancer!r}, alpha={self.alpha})"
