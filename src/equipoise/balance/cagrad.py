"""CAGrad: conflict-averse gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import clipped, norm_bound
from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import conflict_averse_direction

__all__ = ["CAGrad"]


@register(
    "cagrad",
    summary="within a ball around the mean gradient, the direction that serves the worst-off task best",
    paper="Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021",
    price="K backward",
    promise="for c < 1 the mean loss does not increase to first order, and its minima are kept",
    serves="when the mean loss is what counts, but the worst-off task should be helped on the way",
    caveats="single losses may increase; choose `c`; the units of a loss matter",
    adds_up_to="1 + c‖g₀‖/‖g_w‖: it starts from the *mean* gradient g₀",
    checked="reference implementation, equations",
    preference="weights: Σ p_k ℓ_k takes the place of the mean loss",
    same_as=(({"c": 0.0}, "ls"),),
)
class CAGrad(PreferenceBalancer):
    """Maximises the smallest local improvement min_k ⟨g_k, d⟩ over ‖d − g_0‖ ≤ c‖g_0‖, g_0 being the mean gradient.

    Its dual is min over the simplex of ⟨g_w, g_0⟩ + c‖g_0‖‖g_w‖, and d = g_0 + c‖g_0‖/‖g_w‖ · g_w (Liu et al., 2021,
    Algorithm 1). For c < 1 the mean loss does not increase to first order, and minima of the mean loss are kept.

    **Mind.** Single losses may increase. You have to choose ``c``: 0 is the mean gradient, large values tend to MGDA's
    direction. The units of a loss matter.

    Args:
        c: radius of the ball relative to ‖g_0‖; 0 is the mean gradient. The paper uses 0.4 (and 0.2 on CityScapes).
        rescale: divide d by 1 + c² as the released code does.
        max_norm: clip d, after that, to this norm. The released code clips K times it to 1, which is ``max_norm=1/K`` here
            up to the factor K. Left out, no clipping.
        preference: p, one number per task, at least 0, in the tasks' order or by name: g_0 is then Σ p_k g_k / Σ p over the
            tasks present, and it is that weighted loss whose minima are kept. The paper has the mean.

    Raises:
        InputError: c is negative or not finite, ``max_norm`` not positive, or preferences do not fit the tasks.

    Example:
        >>> import torch
        >>> CAGrad(c=0.0).weights(torch.eye(2))
        tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        c: float = 0.4,
        rescale: bool = False,
        max_norm: float | None = None,
        preference: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(preference)
        if not 0 <= c < float("inf"):
            raise InputError(f"c must be finite and at least 0; got {c}")
        self.c = float(c)
        self.rescale = rescale
        self.max_norm = norm_bound(max_norm)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.conflict_averse_direction`."""
        return self._resized(conflict_averse_direction(gramian, self.c, self._given(len(gramian))), gramian)

    def _resized(self, weights: NDArray[np.float64], gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        return clipped(weights / (1 + self.c**2) if self.rescale else weights, gramian, self.max_norm)

    def __repr__(self) -> str:
        clip = "" if self.max_norm is None else f", max_norm={self.max_norm}"
        preferred = "".join(f", {option}" for option in self._named())
        return f"{type(self).__name__}(c={self.c}{', rescale=True' if self.rescale else ''}{clip}{preferred})"
