"""PMGDA: a preference-based multiple-gradient descent algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.chosen_point import ChosenPointBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import constant_distance_descent, least_slack_weights, ray_distance

__all__ = ["PMGDA"]


@register(
    "pmgda",
    summary="goes to the ray of the preference, then down along it",
    paper="Zhang et al., PMGDA: A Preference-based Multiple Gradient Descent Algorithm, 2024 (arXiv 2402.09492)",
    price="K backward",
    promise="ends on the front within `tolerance` of the ray, on concave fronts too",
    serves="a point of the front by the ratios of the losses, up to a tolerance of one's own",
    caveats="losses are assumed non-negative; single losses rise on the way to the ray; `tolerance` is in the losses' units",
    adds_up_to="what a direction of length 1 at most needs; near the ray what MGDA's constraint needs",
    checked="scipy's linear programmes, quadprog",
    preference="ray: losses in the proportions of p, up to `tolerance`",
)
class PMGDA(ChosenPointBalancer):
    """Corrects while h(ℓ) > ε, predicts where it is not (Zhang et al., 2024); h = ‖ℓ − p̂p̂ᵀℓ‖ is the distance from the ray.

    The correction lowers h at a rate of at least σ‖∇h‖, and gives the worst task what that leaves (eq. 20, a linear programme,
    with weights by eq. 18). The prediction is the common descent that leaves h as it is (eq. 8 and its dual, eq. 11), where
    released code takes MGDA's; that code also adds 1e-4 to the gradients' norms. Only a part of the paper's text was
    available: eq. 18 and 20 follow released code. Its other functions h (a region of interest, the cross-entropy) are not here.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; only ratios matter, equal if left out.
        tolerance: ε ≥ 0, in the losses' units; 0.01 in released code.
        sigma: σ, from 0 to 1; 0.95 in released code.

    Raises:
        InputError: an option is out of range, or preferences do not fit the tasks.

    Example:
        >>> PMGDA().weights([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]).tolist()
        [0.5, 0.5]
    """

    def __init__(
        self, preference: Sequence[float] | Mapping[str, float] | None = None, tolerance: float = 0.01, sigma: float = 0.95
    ) -> None:
        if not 0 <= tolerance < float("inf"):
            raise InputError(f"tolerance must be finite and at least 0; got {tolerance}")
        if not 0 <= sigma <= 1:
            raise InputError(f"sigma must be between 0 and 1; got {sigma}")
        super().__init__(preference)
        self.tolerance = float(tolerance)
        self.sigma = float(sigma)

    def at(
        self, losses: NDArray[np.float64], gramian: NDArray[np.float64], preference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """See :func:`~equipoise.solvers.least_slack_weights` and :func:`~equipoise.solvers.constant_distance_descent`."""
        distance, slope = ray_distance(losses, preference)
        if distance <= self.tolerance:
            return constant_distance_descent(gramian, slope)
        return least_slack_weights(gramian, slope, self.sigma)
