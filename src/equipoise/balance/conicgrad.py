"""ConicGrad: the best worst-case improvement within a cone around the mean gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import GramianBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import conic_direction

__all__ = ["ConicGrad"]


@register(
    "conicgrad",
    summary="within a cone around the mean gradient, the direction that serves the worst-off task best",
    paper="Hassanpour et al., Fantastic Multi-Task Gradient Updates and How to Find Them In a Cone, 2025",
    price="K backward",
    promise="an angle to the mean gradient of at most arccos c, so the mean loss does not increase",
    serves="as `cagrad`, where the angle to the mean should be bounded rather than the distance",
    caveats="single losses may increase; the units of a loss matter; `c` to choose",
    adds_up_to="whatever gives the direction the mean gradient's length",
    checked="optimality conditions; all directions on a grid",
    same_as=(({"c": 1.0}, "ls"),),
)
class ConicGrad(GramianBalancer):
    """Maximises min_k ⟨g_k, d⟩ over cos(d, g_0) ≥ c, g_0 being the mean gradient (Hassanpour et al., 2025).

    The problem is the paper's, as a review quotes it; the rest of the paper's text was not available. Here it is solved
    exactly, for directions as long as g_0. MGDA's point of smallest norm is its direction if the cone holds it; else d = g_0 +
    Σ v_i g_i on the cone's boundary, with v ≥ 0 on the tasks that gain least. With c = 1 this is the mean gradient, with c = 0
    MGDA's direction. Where the gradients cancel (a Pareto-stationary point) and the cone is wide enough to hold no better
    direction than standing still, d shrinks to 0.

    Args:
        c: least cosine of the angle between the direction and the mean gradient, between 0 and 1. The paper's
            was not available.

    Raises:
        InputError: c is not between 0 and 1.

    Example:
        >>> import torch
        >>> ConicGrad(c=1.0).weights(torch.eye(2))
        tensor([0.5000, 0.5000])
    """

    def __init__(self, c: float = 0.5) -> None:
        if not 0 <= c <= 1:
            raise InputError(f"c must be between 0 and 1; got {c}")
        self.c = float(c)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.conic_direction`."""
        return conic_direction(gramian, self.c)

    def __repr__(self) -> str:
        return f"ConicGrad(c={self.c})"
