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
        tolerance: the largest mean over tasks of the relative loss change ``|after - before| / size``; falls count like
            rises, for a teleport is meant to keep the losses.

    Raises:
        InputError: a tolerance that is not positive.
    """

    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise InputError(f"tolerance must be a positive relative loss change, such as 0.05; got {self.tolerance}")

    def objection(self, before: Array, after: Array, sizes: Array, measure_before: float, measure_after: float) -> str:
        """Why not to land; empty if nothing speaks against it.

        Args:
            before: losses at θ, ``[k]``.
            after: losses at θ + Δθ, ``[k]``.
            sizes: what they are divided by, ``[k]``.
            measure_before: the trigger's measure of conflict at θ.
            measure_after: the same at θ + Δθ.
        """
        change = float(np.mean(np.abs(after - before) / sizes))
        if not np.isfinite(change) or not np.isfinite(measure_after):
            return "a loss or gradient is not finite there"
        if change > self.tolerance:
            return f"the losses change by {change:.1%} on held-out batches, more than the tolerance of {self.tolerance:.1%}"
        if measure_after > measure_before:
            return (
                f"the conflict gets worse on held-out batches: cosine {-measure_before:.3f} before, {-measure_after:.3f} after"
            )
        return ""
