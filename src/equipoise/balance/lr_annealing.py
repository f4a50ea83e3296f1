"""Learning-rate annealing of physics-informed networks: weights from the sizes of gradient entries."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import GradientBalancer, Observation, as_numbers, finite_direction
from equipoise.balance.per_task import place_of
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of, Whole

__all__ = ["LRAnnealing"]


@register(
    "lr-annealing",
    summary="brings the mean gradient entry of each loss to the largest entry of a reference loss's",
    paper=(
        "Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural "
        "Networks, SIAM J. Sci. Comput. 2021 (arXiv 2001.04536)"
    ),
    price="K backward",
    promise="boundary conditions pull as hard as the residual, whatever their units",
    serves="physics-informed losses: one residual and its conditions",
    caveats="knows sizes and no conflicts; the first task is the reference unless you name another",
    adds_up_to="1 for the reference; the others on its scale",
    checked="released code's formula",
)
class LRAnnealing(GradientBalancer):
    """Sums λ_k g_k with λ_k ← (1−α)λ_k + α·max|g_r| / mean|λ_k g_k|, for all tasks but the reference r, whose λ is 1.

    Maximum and mean are over the entries of a gradient. λ starts from 1. The paper's text was not available; this follows its
    released code (github.com/PredictiveIntelligenceLab/GradientPathologiesPINNs), where λ_k is in the denominator,
    so that it settles at the root of max|g_r|/mean|g_k|. Others (Bischof and Kraus, arXiv 2110.09813, and NVIDIA's
    PhysicsNeMo) take it as mean over mean without λ: ``statistic="mean", weighted=False``. The released code leaves biases out
    and takes the mean of the layers' means; here all shared parameters count alike, and λ is used as soon as it is found.

    A gradient of zeros moves nothing; tasks that a batch lacks keep their λ, and all do where it lacks the reference.

    Args:
        reference: r, the residual's name, or its position among the tasks.
        alpha: α; 0.1 as in the released code.
        every: steps from one look at the gradients' sizes to the next; 10 as in the released code.
        statistic: ``"max"`` or ``"mean"`` of |g_r|.
        weighted: whether λ_k stands in the denominator.

    Raises:
        InputError: an argument is out of range; at a step, there is no such task.

    Example:
        >>> balancer = LRAnnealing(alpha=1.0)
        >>> balancer.direction(torch.tensor([[3.0, 1.0], [0.5, 0.5]]))
        tensor([6., 4.])
    """

    stateful: ClassVar = {"scales": Maybe(Of(("K",), least=0)), "steps": Whole()}
    decides_purely = True

    def __init__(
        self,
        reference: str | int = 0,
        alpha: float = 0.1,
        every: int = 10,
        statistic: Literal["max", "mean"] = "max",
        weighted: bool = True,
    ) -> None:
        if isinstance(reference, int) and reference < 0:
            raise InputError(f"reference must be the name of a task or a position from 0 on; got {reference}")
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be between 0 and 1; got {alpha}")
        if every < 1:
            raise InputError(f"every must be at least 1; got {every}")
        if statistic not in ("max", "mean"):
            raise InputError(f'statistic must be "max" or "mean"; got "{statistic}"')
        self.reference = reference
        self.alpha = alpha
        self.every = every
        self.statistic = statistic
        self.weighted = weighted
        self.scales: Tensor | None = None
        self.steps = 0
        self._now: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]`` of the tasks present."""
        observation.check_memory(self, self.scales)
        gradients = observation.needed("gradients")
        place = place_of("reference", self.reference, observation.tasks)
        known = torch.ones(len(observation.tasks), dtype=torch.float64, device=gradients.device)
        scales = observation.of_present(known if self.scales is None else self.scales.to(gradients.device))
        if self.steps % self.every == 0 and place in observation.present:
            sizes = gradients.abs()
            reference = sizes[observation.present.index(place)]
            size = reference.max().double() if self.statistic == "max" else reference.mean(dtype=torch.float64)
            means = sizes.mean(1, dtype=torch.float64)
            found = size / (means * scales if self.weighted else means)
            moved = (1 - self.alpha) * scales + self.alpha * found
            scales = torch.where(moved.isfinite() & (size > 0), moved, scales)
            scales[observation.present.index(place)] = 1.0
        self._now = scales
        return scales.to(gradients) @ gradients

    def direction(self, gradients: Tensor | ArrayLike) -> Tensor:
        """Direction ``[P]`` from gradients ``[K, P]`` of all tasks."""
        gradients = as_numbers(gradients, "task gradients", 2)
        direction = self.decide(Observation.of_all(gradients.new_ones(len(gradients)), gradients))
        self._now = None
        return finite_direction(direction)

    def update(self, observation: Observation) -> None:
        """Keeps λ of the tasks present."""
        if self._now is not None:
            known = torch.ones(len(observation.tasks), dtype=torch.float64, device=self._now.device)
            entries = torch.as_tensor(observation.present, device=self._now.device)
            known = known if self.scales is None else self.scales.to(known)
            self.scales, self._now = known.index_copy(0, entries, self._now), None
        self.steps += 1

    def __repr__(self) -> str:
        return (
            f"LRAnnealing(reference={self.reference!r}, alpha={self.alpha}, every={self.every}, "
            f'statistic="{self.statistic}", weighted={self.weighted})'
        )
