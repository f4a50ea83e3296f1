"""The combination of gradients that projects equally on each of them, which IMTL-G steps along."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.solvers.gramian import Array, accurate_product, read_vector, scale_gramian, solve_linear

# Weights of sum 1 may grow to this total size before their sum is given up; see equal_projections.
_LARGEST_TOTAL = 1e8


def equal_projections(gramian: ArrayLike) -> Array:
    """Weights whose combined gradient has the same projection on the direction of every task gradient.

    Σ w = 1 and dᵀg_i / ‖g_i‖ equal for all i, where d = Σ w_i g_i (Liu et al. 2021, "Towards impartial multi-task
    learning", IMTL-G). With C̃ the regularised cosines, √Q_ii w_i ∝ (C̃⁻¹ 1)_i. Weights may be negative, and with
    them the common projection.

    C̃⁻¹ 1 divided by the norms may have a vanishing sum, and no solution of sum 1 then exists. Where
    |Σ w| < 1e-8 Σ |w|, w is scaled to Σ |w| = 1 instead, with the sign that makes the projections positive.

    Where tasks outnumber dimensions, the only direction with equal projections is in general d = 0; the weights then
    combine to (nearly) that.

    Args:
        gramian: Gramian Q of the task gradients [K, K].

    Returns:
        w [K]; :func:`equal_projections_residual` is at most 1e-12. Tasks with a zero gradient, which have no direction,
        have weight 0; if all are zero, weights are uniform.

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> equal_projections([[4.0, 0.0], [0.0, 1.0]]).round(6).tolist()
        [0.333333, 0.666667]
    """
    scaled = scale_gramian(gramian)
    if scaled.live.size == 0:
        return np.full(scaled.size, 1.0 / scaled.size)
    weights = solve_linear(scaled.cosines, np.ones_like(scaled.norms))
    weights *= scaled.norms.min() / scaled.norms
    total = float(np.abs(weights).sum())
    signed = float(weights.sum())
    weights /= signed if abs(signed) * _LARGEST_TOTAL >= total else total
    return scaled.spread(weights)


def equal_projections_residual(gramian: ArrayLike, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`equal_projections`.

    max_i |p_i - p̄| / Σ_j |C̃_ij| √Q_jj |w_j|, p_i being the projection of the combined gradient on the direction of
    gradient i and p̄ the projections' mean, from the regularised Gramian: the relative change in its entries that would
    make the projections equal. The larger of that and the error of the sum, or of the sum of magnitudes if that is 1.

    Example:
        >>> equal_projections_residual([[4.0, 0.0], [0.0, 1.0]], [1 / 3, 2 / 3]) < 1e-15
        True
    """
    scaled = scale_gramian(gramian)
    given = read_vector(weights, scaled.size, "the weights")
    total = float(np.abs(given).sum())
    wrong_sum = min(abs(float(given.sum()) - 1.0) / max(total, 1.0), abs(total - 1.0))
    if scaled.live.size == 0:
        return wrong_sum
    lengths = given[scaled.live] * (scaled.norms / scaled.norms.max())
    projections = accurate_product(scaled.cosines, lengths)
    totals = np.abs(scaled.cosines) @ np.abs(lengths)
    error = np.abs(projections - projections.mean()) / totals
    return max(wrong_sum, float(error.max()))
