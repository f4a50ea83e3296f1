"""MGDA: the multiple-gradient descent algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import GramianBalancer
from equipoise.balance.registry import register
from equipoise.solvers import minimum_norm_point

__all__ = ["MGDA"]


@register(
    "mgda",
    summary="the shortest convex combination of the task gradients: no task's loss increases",
    paper="Désidéri, Comptes Rendus 2012; Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018",
    price="K backward",
    promise="to first order no loss increases; stops only where no direction serves all tasks",
    serves="when no task may pay for another",
    caveats=(
        "favours the task with the smallest gradient norm: a task that has converged stops all others; the units of a "
        "loss matter"
    ),
    adds_up_to="1",
    checked="reference implementation, equations",
)
class MGDA(GramianBalancer):
    """Takes the minimum-norm point of the gradients' convex hull: min over w ≥ 0, Σw = 1 of ‖Σ_k w_k g_k‖².

    The direction d satisfies ⟨g_k, d⟩ ≥ ‖d‖² for every task: to first order no loss increases. The problem is solved
    exactly (an active-set method), not by the paper's Frank-Wolfe steps.

    Example:
        >>> import torch
        >>> MGDA().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2000, 0.8000])
    """

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.minimum_norm_point`."""
        return minimum_norm_point(gramian)
