"""The parts of the task gradients that are orthogonal to all other tasks' gradients, which GradOPS adds up."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.solvers.gramian import SMALLEST_EIGENVALUE, Array, ScaledGramian, read_array, scale_gramian


def orthogonal_parts(gramian: ArrayLike, *, conflicting: bool = True) -> Array:
    """Coefficients of the parts of the task gradients that are orthogonal to those of all other tasks.

    Row i is that of g_i' = g_i - Π_i g_i, Π_i being the projection on the span of the other tasks' gradients (Zhu et al. 2025,
    "Gradient deconfliction via orthogonal projections onto subspaces"): Σ_j a_ij g_j with a_ii = 1. From the inverse
    of the regularised Gramian, g_i' = Σ_j (Q̃⁻¹)_ij/(Q̃⁻¹)_ii g_j.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        conflicting: leave a gradient as it is if its cosine with no other one is below -1e-10.

    Returns:
        [K, K], one row per task; :func:`orthogonal_parts_residual` is at most 1e-8. A gradient that the others span has a part
        of length 0 (√ridge of its own).

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> orthogonal_parts([[1.0, -0.5], [-0.5, 1.0]]).round(12).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    scaled = scale_gramian(gramian)
    rows = np.eye(scaled.size)
    live = scaled.live
    if live.size:
        inverse = np.linalg.inv(scaled.cosines)
        parts = inverse / inverse.diagonal()[:, None]
        np.fill_diagonal(parts, 1.0)
        kept = ~_conflicting(scaled) if conflicting else np.zeros(live.size, dtype=np.bool_)
        parts[kept] = np.eye(live.size)[kept]
        rows[live[:, None], live] = parts * (scaled.norms[:, None] / scaled.norms)
    return rows


def orthogonal_parts_residual(gramian: ArrayLike, rows: ArrayLike, *, conflicting: bool = True) -> float:
    """The largest inner product of a projected gradient with another task's, relative to what it is summed from.

    Both with the regularised Gramian; rows of gradients that are left as they are count by their distance from that.

    Example:
        >>> orthogonal_parts_residual([[1.0, -0.5], [-0.5, 1.0]], [[1.0, 0.5], [0.5, 1.0]])
        0.0
    """
    scaled = scale_gramian(gramian)
    live = scaled.live
    lengths = read_array(rows, "the rows")[live[:, None], live] * (scaled.norms / scaled.norms[:, None])
    projected = _conflicting(scaled) if conflicting else np.ones(live.size, dtype=np.bool_)
    products = np.abs(lengths @ scaled.cosines)
    np.fill_diagonal(products, 0.0)
    off = np.where(projected[:, None], products, np.abs(lengths - np.eye(live.size)))
    return float((off / np.abs(lengths).sum(axis=1, keepdims=True)).max(initial=0.0))


def _conflicting(scaled: ScaledGramian) -> NDArray[np.bool_]:
    return np.asarray((scaled.cosines < -SMALLEST_EIGENVALUE).any(axis=1))
