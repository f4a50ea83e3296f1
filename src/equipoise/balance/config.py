"""ConFIG: conflict-free inverse gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.solvers import conflict_free_weights

__all__ = ["ConFIG"]


@register(
    "config",
    summary="the direction with equal cosines with all task gradients, as long as the gradients agree on it",
    paper="Liu et al., ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks, ICLR 2025",
    price="K backward",
    promise="for independent gradients every loss decreases, by the same cosine, whatever its units",
    serves="losses of very different scale that conflict, as in physics-informed networks",
    caveats="dependent gradients, as with more tasks than directions, lose the promise",
    adds_up_to="what gives the length ⟨Σ g_k, d̂⟩",
    checked="defining equations, TorchJD",
    preference="weights: the cosine with g_k is proportional to p_k",
)
class ConFIG(PreferenceBalancer):
    """(Σ_k ⟨g_k, d̂⟩) d̂, d̂ the unit vector along the pseudo-inverse of the unit gradients times p (Liu et al., 2025, eq. 2, 3).

    ⟨d̂, g_k⟩/‖g_k‖ is proportional to p_k. For independent gradients and equal p this is the direction of IMTL-G with another
    length. Only the Gramian is used: the pseudo-inverse has a K × K form. The momentum variant (M-ConFIG) is not here.

    **Mind.** The promise fails for dependent gradients (more tasks than directions, copies that oppose each other): the
    least-squares direction may conflict. The step gets short where gradients nearly cancel.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; equal if left out. Only ratios matter. A
            batch that lacks tasks uses the numbers of those it holds.

    Raises:
        InputError: negative, non-finite, or not one preference per task.

    Example:
        >>> import torch
        >>> ConFIG().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.7500, 1.5000])
    """

    usual = "sum"

    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.conflict_free_weights`."""
        return conflict_free_weights(gramian, preference)
