"""Krum and Multi-Krum: the gradients nearest to their neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import GramianBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import krum_weights

__all__ = ["Krum"]


@register(
    "krum",
    summary="the task gradient that is nearest to its neighbours, or the mean of several such",
    paper="Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, NeurIPS 2017",
    aliases=("multi-krum",),
    price="K backward",
    promise="`n_byzantine` arbitrary gradients among K > 2 `n_byzantine` + 2 cannot carry the direction away",
    serves="tasks that are copies of one, some of them corrupt, as workers of federated training",
    caveats="tasks off the crowd are not trained; the units of a loss matter",
    adds_up_to="1",
    checked="TorchJD, by hand",
)
class Krum(GramianBalancer):
    """The mean of the ``n_selected`` gradients that are nearest to their neighbours (Blanchard et al., 2017).

    Nearest are those with the smallest Σ ‖g_i − g_j‖² over the K − f − 2 nearest j.

    f is ``n_byzantine``. Gradients with equal scores share what is left for them, so the order of the tasks does not matter.
    Where a step has too few tasks for K − f − 2 ≥ 1, the nearest neighbour alone counts; TorchJD refuses those, takes the
    first of equal scores and sums distances instead of their squares, which ``squared=False`` does here.

    Args:
        n_byzantine: f ≥ 0, how many gradients may be arbitrary.
        n_selected: how many gradients are averaged; 1 is Krum, more is Multi-Krum.
        squared: sum squared distances, as the paper; else distances.

    Raises:
        InputError: ``n_byzantine`` is negative or ``n_selected`` below 1.

    Example:
        >>> import torch
        >>> Krum(n_byzantine=1).weights(torch.tensor([[1.0, 1, 0, 1], [1, 1, 0, 1], [0, 0, 9, 0], [1, 1, 0, 1.0]]))
        tensor([0.3333, 0.3333, 0.0000, 0.3333])
    """

    def __init__(self, n_byzantine: int = 1, n_selected: int = 1, squared: bool = True) -> None:
        if n_byzantine < 0:
            raise InputError(f"n_byzantine must be at least 0; got {n_byzantine}")
        if n_selected < 1:
            raise InputError(f"n_selected must be at least 1; got {n_selected}")
        self.n_byzantine = n_byzantine
        self.n_selected = n_selected
        self.squared = squared

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.krum_weights`."""
        return krum_weights(gramian, self.n_byzantine, self.n_selected, squared=self.squared)

    def __repr__(self) -> str:
        distances = "" if self.squared else ", squared=False"
        return f"Krum(n_byzantine={self.n_byzantine}, n_selected={self.n_selected}{distances})"
