"""EPO: exact Pareto-optimal search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.chosen_point import ChosenPointBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import exact_pareto_weights

__all__ = ["EPO"]


@register(
    "epo",
    summary="descends, or balances the weighted losses, until they are equal on the Pareto front",
    paper="Mahapatra and Rajan, Multi-Task Learning with User Preferences, ICML 2020",
    aliases=("exact-pareto",),
    price="K backward",
    promise="ends where all p_k ℓ_k are equal on the front, on concave fronts too; from any start",
    serves="a point of the front by the ratios of the losses, exactly",
    caveats="losses must be positive; single losses rise while it balances; steps swing near the end: lower the rate",
    adds_up_to="1",
    checked="scipy's linear programmes; the released code's numbers",
    preference="weights: all p_k ℓ_k become equal",
)
class EPO(ChosenPointBalancer):
    """Balances r_k ℓ_k while they are uneven, and descends where they are even (Mahapatra and Rajan, 2020, EPO Search).

    The weights solve a linear programme over the simplex, see :func:`equipoise.solvers.exact_pareto_program`. The paper's text
    was not available; this follows the code that its authors released. That code also multiplies the learning rate with the
    non-uniformity, and takes a vertex where the programme has several solutions; here it is one near equal parts.

    Args:
        preference: r, one positive number per task, in the tasks' order or by name; divided by
            its sum, equal if left out. The losses end in the proportions of 1/r.
        tolerance: of the non-uniformity Σ ℓ̂_k log(K ℓ̂_k), ℓ̂ = r∘ℓ/Σ r_k ℓ_k, below which it descends; 1e-4 in released code.

    Raises:
        InputError: a preference is not positive or does not fit the tasks, or the tolerance is negative.
        NonFiniteError: at a step, when a loss is not positive.

    Example:
        >>> EPO().weights([[1.0, 0.0], [0.0, 1.0]], [3.0, 1.0]).round(decimals=6).tolist()
        [1.0, 0.0]
    """

    def __init__(self, preference: Sequence[float] | Mapping[str, float] | None = None, tolerance: float = 1e-4) -> None:
        if not 0 <= tolerance < float("inf"):
            raise InputError(f"tolerance must be finite and at least 0; got {tolerance}")
        super().__init__(preference)
        self.tolerance = float(tolerance)

    def prefer(self, preference: float | Sequence[float] | Mapping[str, float] | None) -> None:
        """See :meth:`~equipoise.balance.per_task.Preferring.prefer`; here no preference may be 0."""
        before = self.preference
        super().prefer(preference)
        if self.preference is not None and not all(value > 0 for value in self.preference.values):
            self.preference = before
            raise InputError(f"preference must be above 0 for EPO; got {preference}")

    def at(
        self, losses: NDArray[np.float64], gramian: NDArray[np.float64], preference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.exact_pareto_weights`."""
        if not (losses > 0).all():  # which task it is that has no positive loss is for the error to say
            return np.where(losses > 0, 1.0, np.nan)
        return exact_pareto_weights(gramian, losses, preference, self.tolerance)
