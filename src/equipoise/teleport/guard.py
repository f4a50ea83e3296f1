"""Whether to land: the losses must be about the same on batches that the search has not seen, and the conflict no worse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise.teleport.checks import check_number, check_switch
from equipoise.teleport.formulations import Formulation
from equipoise.teleport.measure import Array

__all__ = ["Guard"]


@dataclass(frozen=True)
class Guard:
    """The conditions of a landing, judged on the held-out batches of :class:`~equipoise.teleport.Probes`.

    Let ``c_i = (L_i(θ+Δθ) - L_i(θ)) / size_i``. Where the search wants losses kept (the paper's eq. 7), the mean over tasks of
    ``|c_i|`` must not exceed the tolerance: falls count like rises. Where losses may fall, the largest ``c_i`` must not.

    Args:
        tolerance: the relative loss change that is allowed. Left out, the formulation's own: 0.02 for pareto's, 0.05 for
            the others.
        conflict: whether the trigger's measure of conflict must not grow either. On few batches that is a noisy measure, which
            refuses many landings.

    Raises:
        InputError: a tolerance that is not positive.

    Example:
        >>> from equipoise.teleport import PaperFormulation
        >>> before, after, sizes = np.array([1.0, 2.0]), np.array([1.2, 2.0]), np.array([1.0, 2.0])
        >>> Guard(tolerance=0.05).objection(before, after, sizes, 0.3, 0.1, PaperFormulation())
        'the losses change by 10.0% on held-out batches, more than the tolerance of 5.0%'
    """

    tolerance: float | None = None
    conflict: bool = False

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, "a positive relative loss change, such as 0.05")
        check_switch("conflict", self.conflict)

    def tolerance_for(self, formulation: Formulation) -> float:
        """The tolerance in force."""
        return formulation.tolerance if self.tolerance is None else self.tolerance

    def objection(
        self, before: Array, after: Array, sizes: Array, measure_before: float, measure_after: float, formulation: Formulation
    ) -> str:
        """Why not to land; empty if all checks pass.

        Args:
            before: losses at θ, ``[k]``.
            after: losses at θ + Δθ, ``[k]``.
            sizes: what they are divided by, ``[k]``.
            measure_before: the trigger's measure of conflict at θ.
            measure_after: the same at θ + Δθ.
            formulation: what the search looked for; says whether losses may fall.
        """
        changes = (after - before) / sizes
        change = float(changes.max() if formulation.losses_may_fall else np.abs(changes).mean())
        if not np.isfinite(changes).all() or not np.isfinite(measure_after):
            return "a loss or gradient is not finite there"
        tolerance = self.tolerance_for(formulation)
        if change > tolerance:
            how = "change for the worse" if formulation.losses_may_fall else "change"
            return f"the losses {how} by {change:.1%} on held-out batches, more than the tolerance of {tolerance:.1%}"
        if self.conflict and measure_after > measure_before:
            cosines = f"cosine {-measure_before:.3f} before, {-measure_after:.3f} after"
            return f"the conflict gets worse on held-out batches: {cosines}"
        return ""
