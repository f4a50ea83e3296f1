"""GO4Align: tasks that learn alike share a weight."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import group_values
from equipoise.states import Maybe, Of

__all__ = ["GO4Align"]


@register(
    "go4align",
    summary="scales losses to one size and gives tasks that fare alike one weight",
    paper="Shen et al., GO4Align: Group Optimization for Multi-Task Alignment, NeurIPS 2024",
    price="1 backward",
    promise="losses on one scale at the start; later a smaller share for tasks whose losses added up to more",
    serves="many tasks on different scales in a few kinds, when one backward is all you can afford",
    caveats="losses must be positive; shares never come back: mind `lr` in long trainings",
    adds_up_to="Σ_k p_k Σℓ/ℓ_k: K for equal losses at the start, more the less equal they are",
    checked="released code's formula; exact grouping against brute force and scikit-learn",
)
class GO4Align(LossBalancer):
    """Weighs each task by its group's mean of p_k Σ_j ℓ_j / ℓ_k, the groups being those of k-means on these numbers.

    The share p follows the losses, p_k ∝ p_k exp(−η ℓ_k) starting from equal shares (Shen et al., 2024, risk-guided group
    indicators), and the factor Σℓ/ℓ_k scales every loss to the same size; p is updated before it is used, with this step's
    losses. Shares are kept as logarithms: log p_k is −η times the sum of the task's losses so far, so it is the exponentiated
    gradient that lowers the share of a task that stays bad, not one that raises it as in robust optimisation.

    The released code computes it in this way. It runs k-means from random starts. Numbers on a line can be grouped
    exactly, as here (:func:`equipoise.solvers.group_values`), without random numbers. The released
    command line defaults to one group, where all tasks weigh the same. The losses come to the CPU once per step.

    Tasks that a batch lacks keep their share relative to the others, and groups form among those present.

    **Mind.** Losses must be positive. Shares depend on the sum of the losses so far, in their units, and never recover: choose
    ``lr`` with care where losses are large or training is long. With one group it is ``ls`` times a number.

    Args:
        groups: how many groups at most; the number of tasks or more leaves every task its own weight.
        lr: η, per unit of loss; 1e-4 as in the released code.
        epsilon: added to the losses where they are divided by.

    Raises:
        InputError: there are no groups, or a number is negative.
        NonFiniteError: at a step, when a loss is negative.

    Example:
        >>> GO4Align(groups=2).weights(torch.tensor([1.0, 1.0, 10.0]))
        tensor([4.0012, 4.0012, 0.3998])
    """

    stateful: ClassVar = {"log_shares": Maybe(Of(("K",), cpu=True))}
    decides_purely = True

    def __init__(self, groups: int = 2, lr: float = 1e-4, epsilon: float = 1e-8) -> None:
        if groups < 1:
            raise InputError(f"groups must be at least 1; got {groups}")
        for name, value in (("lr", lr), ("epsilon", epsilon)):
            if not value >= 0:
                raise InputError(f"{name} must be at least 0; got {value}")
        self.groups = groups
        self.lr = lr
        self.epsilon = epsilon
        self.log_shares: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """The groups' means, for the tasks present."""
        observation.check_memory(self, self.log_shares)
        losses = observation.needed("losses").detach().to("cpu", torch.float64).numpy()
        shifted = losses + self.epsilon
        good = (shifted > 0) & np.isfinite(shifted)
        if not good.all():
            return torch.from_numpy(np.where(good, 1.0, np.nan))
        logs = -self.lr * losses
        if self.log_shares is not None:
            logs += observation.of_present(self.log_shares).numpy()
        shares = np.exp(logs - logs.max())
        with np.errstate(over="ignore", invalid="ignore"):
            weights = shares / shares.sum() * (shifted.sum() / shifted)
        if not np.isfinite(weights).all():
            # The sum, or the quotient, left the number range; what is left outside of it then is the tasks' to hear of.
            with np.errstate(over="ignore", invalid="ignore"):
                largest = shifted.max()
                weights = shares / shares.sum() * ((shifted / largest).sum() * (largest / shifted))
            if not np.isfinite(weights).all():
                return torch.from_numpy(weights)
        if self.groups == 1 or len(weights) == 1:
            return torch.full((len(weights),), weights.mean(), dtype=torch.float64, device="cpu")
        labels = group_values(weights, self.groups)
        means = np.bincount(labels, weights) / np.bincount(labels)
        return torch.from_numpy(means[labels])

    def update(self, observation: Observation) -> None:
        """Moves the shares of the tasks present."""
        losses = observation.needed("losses").detach().to("cpu", torch.float64)
        shares = (
            torch.zeros(len(observation.tasks), dtype=torch.float64, device="cpu")
            if self.log_shares is None
            else self.log_shares
        )
        if observation.complete:
            self.log_shares = shares - self.lr * losses
        else:
            self.log_shares = shares.index_add(0, torch.tensor(observation.present, device="cpu"), -self.lr * losses)

    def __repr__(self) -> str:
        return f"GO4Align(groups={self.groups}, lr={self.lr})"
