"""The nearest point of a simplex."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_array

__all__ = ["project_on_simplex"]


def project_on_simplex(point: ArrayLike, total: float = 1.0) -> Array:
    """The nearest w to a point with w ≥ 0 and Σ w = total.

    It is max(v − τ, 0) for the one τ that meets the sum, found exactly from the sorted entries (Held, Wolfe and Crowder,
    1974). The largest entry is subtracted first, which does not change the answer, so that the sum is met whatever the size
    of the entries.

    Args:
        point: v [K].
        total: what the entries are to add up to; positive.

    Returns:
        w [K].

    Raises:
        InputError: v is no vector, is empty or not finite, or the total is not positive and finite.

    Example:
        >>> project_on_simplex([1.0, 0.5, -1.0]).tolist()
        [0.75, 0.25, 0.0]
    """
    given = read_array(point, "the point")
    if given.ndim != 1 or given.size == 0:
        raise InputError(f"the point has shape {given.shape}; expected [K] with K ≥ 1")
    if not np.isfinite(given).all():
        raise InputError("the point has an entry that is infinite or not a number")
    if isinstance(total, bool) or not isinstance(total, int | float | np.number) or not 0 < total < np.inf:
        raise InputError(f"the total must be positive and finite; got {total}")
    # Halved, for the difference of two large entries may leave the range.
    halves = 0.5 * given
    below = 2.0 * np.maximum(halves - halves.max(), -0.5 * total)
    falling = np.sort(below)[::-1]
    thresholds = (falling.cumsum() - total) / np.arange(1, given.size + 1)
    threshold = thresholds[np.count_nonzero(falling > thresholds) - 1]
    weights: Array = np.maximum(below - threshold, 0.0)
    weights *= total / weights.sum()
    return weights
