"""GradOPS: conflicting gradients without all that other tasks' gradients span."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.solvers import orthogonal_parts

__all__ = ["GradOPS"]


@register(
    "gradops",
    summary="of each conflicting task gradient, the part orthogonal to all others; their sum",
    paper="Zhu et al., Gradient Deconfliction via Orthogonal Projections onto Subspaces for Multi-task Learning, WSDM 2025",
    price="K backward",
    promise="to first order no loss increases, for any K and in any order",
    serves="tasks that conflict, when none may pay for another; as `pcgrad` without its random order",
    caveats="loud losses stay loud; a gradient that the others span counts for nothing",
    adds_up_to="K without conflicts",
    checked="least squares; for two tasks `pcgrad`",
    preference="weights: of the projected gradients in the sum",
)
class GradOPS(PreferenceBalancer):
    """Σ_k p_k g_k', g_k' being the part of g_k that is orthogonal to all other tasks' gradients, if g_k conflicts with one.

    A gradient that conflicts with no other stays as it is, so the g_k' conflict neither with each other nor with any g_j:
    their sum increases no loss to first order (Zhu et al., 2025). PCGrad projects on one gradient after the other, in a random
    order, and promises that for two tasks only. The paper's text was not available beyond its abstract and its first figure,
    which say this much; its rule for trading tasks off, by an exponent α, is not built, ``preference`` takes its place.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; 1 each if left out. A batch that lacks
            tasks uses the numbers of those it holds.

    Raises:
        InputError: negative, non-finite, or not one preference per task.

    Example:
        >>> import torch
        >>> GradOPS().weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
    """

    usual = "sum"

    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.orthogonal_parts`."""
        combined: NDArray[np.float64] = preference @ orthogonal_parts(gramian)
        return combined
