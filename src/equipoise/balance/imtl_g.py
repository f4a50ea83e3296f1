"""IMTL-G: the gradient part of impartial multi-task learning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import GramianBalancer
from equipoise.balance.registry import register
from equipoise.solvers import equal_projections

__all__ = ["IMTLG"]


@register(
    "imtl-g",
    summary="the combination with equal projections onto all task gradients",
    paper="Liu et al., Towards Impartial Multi-task Learning, ICLR 2021",
    aliases=("imtlg",),
    price="K backward",
    promise="equal projections onto all unit task gradients; the units of a loss do not turn the direction",
    serves="few tasks, gradients that are far from parallel",
    caveats="for K > 2 weights can be negative, and losses can go up together",
    adds_up_to="1",
    checked="reference implementation, equations",
)
class IMTLG(GramianBalancer):
    """Finds w with Σ_k w_k = 1 such that d = Σ_k w_k g_k has the same projection onto every unit task gradient.

    The weights may be negative. :func:`equipoise.solvers.equal_projections` says what is done where no such w exists.

    **Mind.** Weights can be negative for K > 2, and large where gradients are nearly dependent. The common projection may then
    be negative, too, and losses go up together.

    Example:
        >>> import torch
        >>> IMTLG().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.3333, 0.6667])
    """

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.equal_projections`."""
        return equal_projections(gramian)
