"""FairGrad: α-fair resource allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import clipped, norm_bound
from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import fair_weights

__all__ = ["FairGrad"]


@register(
    "fairgrad",
    summary="α-fair shares of progress: α = 1 is Nash's bargain, large α serves the worst-off task",
    paper="Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024",
    price="K backward",
    promise="every loss decreases to first order; `alpha` leads from the sum (0) over Nash (1) to the worst-off task",
    serves="as `nash-mtl`, where you want to choose how much fairness",
    caveats="for `alpha` ≥ 1 steps do not shrink with the gradients: clip; units matter, except at 1",
    adds_up_to="what solves the equation; larger the smaller the gradients",
    checked="reference implementation, equations",
    preference="weights: the utility of task k is multiplied with p_k",
    same_as=(({"alpha": 1.0}, "nash-mtl"),),
)
class FairGrad(PreferenceBalancer):
    """Solves (G Gᵀ w)_k = w_k^(−1/α), the optimality condition of α-fair utilities of the tasks' progress ⟨g_k, d⟩.

    Every task gains: ⟨g_k, d⟩ > 0 wherever the equations have a solution. The system is the gradient of a convex function
    and is solved to rounding by Newton's method (the released code calls a general least-squares routine).

    **Mind.** With ``alpha`` = 1 it behaves as ``nash-mtl``. Above 1 the step gets *longer* as gradients vanish, so clip it. For
    any ``alpha`` but 1 the units of a loss matter.

    Args:
        alpha: α > 0; 1 is proportional fairness (the weights of Nash-MTL), 2 the minimum potential delay.
        max_norm: clip the shared direction to this norm. The released code clips K times the direction to 1, which is
            ``max_norm=1/K`` here up to the factor K (for α = 1, where the norm is √K, a factor alone). Left out, no clipping.
        preference: p, one number per task, at least 0, in the tasks' order or by name: (G Gᵀ w)_k = (p_k/w_k)^(1/α), the
            utilities times p. Only ratios matter: the mean of p over the tasks present counts as 1. The paper has p = 1.

    Raises:
        InputError: α is not positive or not finite, ``max_norm`` not positive, or preferences do not fit the tasks.

    Example:
        >>> import torch
        >>> FairGrad(alpha=1.0).weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 1.0000])
    """

    def __init__(
        self, alpha: float = 1.0, max_norm: float | None = None, preference: Sequence[float] | Mapping[str, float] | None = None
    ) -> None:
        super().__init__(preference)
        if not 0 < alpha < float("inf"):
            raise InputError(f"alpha must be positive and finite; got {alpha}")
        self.alpha = float(alpha)
        self.max_norm = norm_bound(max_norm)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.fair_weights`."""
        return clipped(fair_weights(gramian, self.alpha, self._ratios(len(gramian))), gramian, self.max_norm)

    def __repr__(self) -> str:
        clip = [] if self.max_norm is None else [f"max_norm={self.max_norm}"]
        return f"FairGrad({', '.join([f'alpha={self.alpha}', *clip, *self._named()])})"
