"""Random loss weighting."""

from __future__ import annotations

from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers
from equipoise.balance.registry import register
from equipoise.states import Anything

__all__ = ["RLW"]


@register(
    "rlw",
    summary="weights drawn at random every step: softmax of standard normals",
    paper="Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022",
    aliases=("random-loss-weighting",),
    price="1 backward",
    promise="the mean loss in expectation, with noise",
    serves="as a sanity check: a method that does not beat it has not shown much",
    caveats="the units matter as for `ls`; noise, so compare over seeds",
    adds_up_to="1",
    checked="its distribution",
)
class RLW(LossBalancer):
    """Draws z ~ N(0, I) every step and minimises Σ_k softmax(z)_k ℓ_k (the normal variant of Lin et al., 2022).

    Args:
        seed: of the balancer's own generator; torch's global random state is neither read nor moved. Under
            ``torch.distributed`` every process must use the same seed.

    Example:
        >>> balancer = RLW(seed=3)
        >>> float(balancer.weights(torch.ones(4)).sum())
        1.0
    """

    stateful: ClassVar = {"generator": Anything()}
    depends_on_losses = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def decide(self, observation: Observation) -> Tensor:
        """New weights; as many numbers are drawn as there are tasks, whichever of them are present."""
        drawn = torch.randn(len(observation.tasks), generator=self.generator, device="cpu")
        return torch.softmax(observation.of_present(drawn), 0)

    def weights(self, losses: Tensor | ArrayLike) -> Tensor:
        """New weights for losses ``[K]``."""
        losses = as_numbers(losses, "the losses", 1)
        return torch.softmax(torch.randn(len(losses), generator=self.generator, device="cpu"), 0).to(losses)

    def __repr__(self) -> str:
        return f"RLW(seed={self.seed})"
