"""UPGrad: unconflicting projections of the task gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.solvers import unconflicting_weights

__all__ = ["UPGrad"]


@register(
    "upgrad",
    summary="every task gradient is projected onto the directions that no loss increases along; their mean",
    paper="Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024",
    price="K backward",
    promise="to first order no loss increases, for any K; without conflicts it is the mean gradient",
    serves="tasks that conflict, when none may pay for another but long gradients should still count more",
    caveats="loud losses stay loud; nearly opposed gradients shorten the step",
    adds_up_to="1 or more; exactly 1 without conflicts",
    checked="KKT conditions, closed form for two tasks, TorchJD",
    preference="weights: the projected gradients are added up with p",
)
class UPGrad(PreferenceBalancer):
    """Σ_k p_k π(g_k), π being the projection onto the dual cone {d : ⟨g_i, d⟩ ≥ 0 for all i} (Quinton and Rey, 2024, eq. 6).

    The direction does not conflict with any task, and grows in proportion to each gradient's length. All projections are
    exact: nothing is added to the Gramian unless gradients are dependent, and then 1e-10 of its diagonal (TorchJD adds
    1e-4 of the trace, which turns the directions of small gradients).

    **Mind.** Loud losses stay loud. It stops where no direction serves all tasks, and nearly opposed gradients shorten the
    step. Each step solves K small quadratic programmes.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; 1/K if left out. A batch that lacks
            tasks uses the numbers of those it holds.

    Raises:
        InputError: negative, non-finite, or not one preference per task.

    Example:
        >>> import torch
        >>> UPGrad().weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([0.7500, 0.7500])
    """

    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.unconflicting_weights`."""
        return unconflicting_weights(gramian, preference)
