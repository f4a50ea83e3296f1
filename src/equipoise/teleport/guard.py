"""Whether to land: the losses must be about the same on batches that the search has not seen, and the conflict no worse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise.errors import InputError
from equipoise.teleport.joint import Array

__all__ = ["Guard"]


@dataclass(frozen=True)
class Guard:
    """The conditions of a landing.

    Args:
        tolerance: the largest relative loss change. Of the mean over tasks of ``|after - before| / size``, falls counting
            like rises, for a teleport is meant to keep the losses; or, if losses may fall, of the task whose loss rises most.
        losses_may_fall: whether falls are welcome.
        conflict: whether the conflict counts as well. On few batches it is a noisy measure, which refuses many landings.

    Raises:
        InputError: a tolerance that is not positive.
    """

    tolerance: float = 0.05
    losses_may_fall: bool = False
    conflict: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance > 0:
            raise InputError(f"tolerance must be a positive relative loss change, such as 0.05; got {self.tolerance!r}")

    def objection(self, before: Array, after: Array, sizes: Array, measure_before: float, measure_after: float) -> str:
        """Why not to land; empty if nothing speaks against it.

        Args:
            before: losses at θ, ``[k]``.
            after: losses at θ + Δθ, ``[k]``.
            sizes: what they are divided by, ``[k]``.
            measure_before: the trigger's measure of conflict at θ.
            measure_after: the same at θ + Δθ.
        """
        changes = (after - before) / sizes
        change = float(changes.max() if self.losses_may_fall else np.abs(changes).mean())
        if not np.isfinite(changes).all() or not np.isfinite(measure_after):
            return "a loss or gradient is not finite there"
        if change > self.tolerance:
            how = "change for the worse" if self.losses_may_fall else "change"
            return f"the losses {how} by {change:.1%} on held-out batches, more than the tolerance of {self.tolerance:.1%}"
        if self.conflict and measure_after > measure_before:
            cosines = f"cosine {-measure_before:.3f} before, {-measure_after:.3f} after"
            return f"the conflict gets worse on held-out batches: {cosines}"
        return ""
