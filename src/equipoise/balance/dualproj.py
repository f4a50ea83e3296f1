"""DualProj: the mean gradient, projected onto the directions that no loss increases along."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.solvers import dual_cone_projection

__all__ = ["DualProj"]


@register(
    "dualproj",
    summary="the direction nearest to the mean gradient among those that no loss increases along",
    paper="Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017",
    aliases=("gem",),
    price="K backward",
    promise="to first order no loss increases; the mean gradient wherever that conflicts with no task",
    serves="when the mean loss is what counts and no task may pay for it",
    caveats="a task that the mean would harm stands still; the units of a loss matter",
    adds_up_to="1 or more; exactly 1 without conflicts",
    checked="KKT conditions, closed form for two tasks, TorchJD",
    preference="weights: Σ p_k g_k is what is projected",
)
class DualProj(PreferenceBalancer):
    """The projection of Σ_k p_k g_k onto the dual cone {d : ⟨g_i, d⟩ ≥ 0 for all i} (Lopez-Paz and Ranzato, 2017, eq. 8).

    The paper projects the gradient of the task at hand in continual learning; for tasks that are trained together it is the
    mean gradient, after Quinton and Rey (2024), who gave it the name. Exact, without a margin (the paper's γ is 0 here).

    **Mind.** Tasks that the mean would harm make no progress: it is 0 to first order. The units of a loss
    matter. It stops where no direction serves all tasks.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; 1/K if left out. A batch that lacks
            tasks uses the numbers of those it holds.

    Raises:
        InputError: negative, non-finite, or not one preference per task.

    Example:
        >>> import torch
        >>> DualProj().weights(torch.tensor([[4.0, -1.0], [-1.0, 0.5]]))
        tensor([0.5000, 1.0000])
    """

    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.dual_cone_projection`."""
        return dual_cone_projection(gramian, preference)
