"""IMGrad: conflict-averse gradient descent that minds how unbalanced the tasks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.cagrad import CAGrad
from equipoise.balance.registry import register
from equipoise.solvers import imbalance_direction

__all__ = ["IMGrad"]


@register(
    "imgrad",
    summary="`cagrad`, leaning more on the task that the mean gradient serves least the more tasks are unbalanced",
    paper="Zhou et al., Injecting Imbalance Sensitivity for Multi-Task Learning, IJCAI 2025",
    price="K backward",
    promise="as `cagrad`: for c < 1 the mean loss does not increase to first order",
    serves="as `cagrad`, where one task dominates the mean",
    caveats="single losses may increase; the units of a loss matter; `c` to choose",
    adds_up_to="1 + c‖g₀‖/‖g_w‖, as `cagrad`",
    checked="released code's objective, minimised by hand",
    preference="weights: Σ p_k ℓ_k takes the place of the mean loss",
    same_as=(({"c": 0.0}, "ls"),),
)
class IMGrad(CAGrad):
    """d = g_0 + c‖g_0‖/‖g_w‖ · g_w, w minimising (1.5 − s)⟨g_w, g_0⟩ + s c‖g_0‖‖g_w‖ over the simplex (Zhou et al., 2025).

    g_0 is the mean gradient and s the cosine between it and MGDA's point of smallest norm: near 1 where the tasks are balanced,
    near 0 where some dominate or gradients cancel. :class:`~equipoise.CAGrad` is the same with both factors 1. The paper's
    text was not available beyond its appendix; this follows its released code for three tasks. The released code for two tasks
    (CityScapes) multiplies only a part of ⟨g_w, g_0⟩ by 1.5 − s; that is not followed.

    Args:
        c: radius of the ball relative to ‖g_0‖; 0.8 in the released scripts.
        rescale: divide d by 1 + c² as the released code does.
        max_norm: clip d, after that, to this norm; left out, no clipping.
        preference: p, one number per task, at least 0, in the tasks' order or by name: g_0 is then Σ p_k g_k / Σ p over the
            tasks present. The paper has the mean.

    Raises:
        InputError: c is negative or not finite, ``max_norm`` not positive, or preferences do not fit the tasks.

    Example:
        >>> import torch
        >>> IMGrad(c=0.0).weights(torch.eye(2))
        tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        c: float = 0.8,
        rescale: bool = False,
        max_norm: float | None = None,
        preference: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(c, rescale, max_norm, preference)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.imbalance_direction`."""
        return self._resized(imbalance_direction(gramian, self.c, self._given(len(gramian))), gramian)
