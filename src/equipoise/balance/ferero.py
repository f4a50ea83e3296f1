"""FERERO: a flexible framework for preference-guided multi-objective learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import clipped, norm_bound
from equipoise.balance.chosen_point import ChosenPointBalancer
from equipoise.balance.per_task import PerTask
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import bounded_descent, ray_descent

__all__ = ["FERERO"]


@register(
    "ferero",
    summary="common descent under constraints on the losses: a ray, or an upper bound for each",
    paper="Chen et al., FERERO: A Flexible Framework for Preference-Guided Multi-Objective Learning, NeurIPS 2024",
    price="K backward",
    promise="ends on the front on the ray, or within the bounds, on concave fronts too",
    serves="a point of the front by the ratios of the losses, or losses that must not be above a bound",
    caveats="the units of a loss matter; weights can be negative and large where gradients nearly oppose each other",
    adds_up_to="1 where no constraint pulls",
    checked="cvxpy",
    preference="ray: losses in the proportions of p; or upper bounds of losses by `bounds`",
)
class FERERO(ChosenPointBalancer):
    """Minimises max_k ⟨g_k, d⟩ + ½‖d‖² under ∇Hᵀd + c H = 0, or ∇Gᵀd + c G ≤ 0 (Chen et al., 2024).

    H = 0 says that the losses are in the proportions of p, G_k = ℓ_k − b_k ≤ 0 that they are within bounds; both shrink at the
    rate c. Solved exactly, see :func:`equipoise.solvers.ray_descent` and :func:`equipoise.solvers.bounded_descent`, where
    released code takes steps of projected gradient descent on the dual. Its variant with one such step per step is not here,
    and neither are other partial orders (the paper's cone A). The paper's text was not available; this follows released code,
    for any number of tasks. That code has no bounds, which are the same programme with the inequality of the abstract.

    The rate c is one of losses, so the Gramian's size matters: with a proxy, which knows it up to a factor, c is another one.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; only ratios matter, equal if left out.
        bounds: b, one upper bound of a loss per task, in order or by name, ``inf`` for none; in place of a preference.
        pull: c > 0.
        max_norm: clip the direction to this norm: where gradients get short, off the ray, it gets long. Left out, no clipping.

    Raises:
        InputError: an option is out of range, both a preference and bounds are given, or they do not fit the tasks.

    Example:
        >>> FERERO(bounds=[float("inf"), 1.0]).weights([[1.0, 0.0], [0.0, 1.0]], [1.0, 3.0]).round(decimals=6).tolist()
        [1.0, 2.0]
    """

    def __init__(
        self,
        preference: Sequence[float] | Mapping[str, float] | None = None,
        bounds: Sequence[float] | Mapping[str, float] | None = None,
        pull: float = 1.0,
        max_norm: float | None = None,
    ) -> None:
        if not 0 < pull < float("inf"):
            raise InputError(f"pull must be positive and finite; got {pull}")
        self.bounds = None if bounds is None else PerTask("bounds", bounds, endless=True)
        super().__init__(preference)
        self.pull = float(pull)
        self.max_norm = norm_bound(max_norm)

    def prefer(self, preference: float | Sequence[float] | Mapping[str, float] | None) -> None:
        """See :meth:`~equipoise.balance.per_task.Preferring.prefer`; refused where there are bounds."""
        if preference is not None and self.bounds is not None:
            raise InputError("a preference and bounds are two problems; give one of the two")
        super().prefer(preference)

    def at(
        self, losses: NDArray[np.float64], gramian: NDArray[np.float64], preference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.ray_descent` and :func:`equipoise.solvers.bounded_descent`."""
        if self.bounds is None:
            weights = ray_descent(gramian, losses, preference, self.pull)
        else:
            bounds = self.bounds.of_some(*self._among(len(gramian)))
            weights = bounded_descent(gramian, losses - np.array(bounds), self.pull)
        return clipped(weights, gramian, self.max_norm)

    def _options(self) -> list[str]:
        return [*self._named(), *([] if self.bounds is None else [f"bounds={self.bounds}"]), f"pull={self.pull}"] + (
            [] if self.max_norm is None else [f"max_norm={self.max_norm}"]
        )
