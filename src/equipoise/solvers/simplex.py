"""Quadratic programmes over the simplex."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.solvers.gramian import Array, add_ridge, read_square, read_vector
from equipoise.solvers.nonnegative import pivot_nonnegative, solve_on_support


def simplex_quadratic_program(matrix: ArrayLike, linear: ArrayLike) -> Array:
    """Minimises ½ wᵀC w + bᵀw over the simplex w ≥ 0, Σ w = 1.

    For a given multiplier λ of the sum, the minimiser is a non-negative quadratic programme with linear term λ - b, and
    its sum grows with λ, linearly while the support stays the same: Newton's method, kept inside an interval that
    only shrinks, ends at Σ w = 1 after a few supports.

    Args:
        matrix: C [K, K], symmetric positive semidefinite.
        linear: b [K].

    Returns:
        w [K], non-negative and with sum 1; :func:`simplex_residual` is at most 1e-10. Where the minimiser is not unique
        the ridge (see :mod:`equipoise.solvers.gramian`) chooses a symmetric one.

    Raises:
        InputError: wrong shapes, or entries that are not finite.

    Example:
        >>> simplex_quadratic_program([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5]).tolist()
        [0.75, 0.25]
    """
    inverse_norms, cosines, slopes = _scaled_program(matrix, linear)
    size = slopes.shape[0]
    magnitude = float(np.abs(slopes).max())
    support: NDArray[np.bool_] = np.ones(size, dtype=np.bool_)
    low, high = -np.inf, np.inf
    multiplier = 0.0
    solution = np.zeros(size)
    right = np.stack([inverse_norms, slopes], axis=1)
    for _ in range(100):
        if support.any():
            parts = solve_on_support(cosines, right, support)
            proposed = (1.0 + float(inverse_norms @ parts[:, 1])) / float(inverse_norms @ parts[:, 0])
        else:
            # Nothing is positive yet: raise the multiplier to where the cheapest variable alone would hold everything.
            first = int((slopes / inverse_norms).argmin())
            proposed = float((cosines[first, first] / inverse_norms[first] + slopes[first]) / inverse_norms[first])
        if not low < proposed < high:
            if not (np.isfinite(low) and np.isfinite(high)):
                break
            proposed = 0.5 * (low + high)
            if not low < proposed < high:
                break
        multiplier = proposed
        previous = support
        solution, support = pivot_nonnegative(
            cosines, multiplier * inverse_norms - slopes, abs(multiplier) + magnitude, support
        )
        total = float(inverse_norms @ solution)
        if abs(total - 1.0) <= 1e-14 or (total > 0.0 and np.array_equal(previous, support) and abs(total - 1) < 1e-9):
            break
        if total < 1.0:
            low = multiplier
        else:
            high = multiplier
    weights = solution * inverse_norms
    weights /= weights.sum()
    return weights


def simplex_residual(matrix: ArrayLike, linear: ArrayLike, weights: ArrayLike) -> float:
    """How far w is from minimising ½ wᵀC̃ w + bᵀw over the simplex, C̃ being the regularised matrix.

    The largest of max_j (wᵀs - s_j) / (√C_jj Σ_i w_i √C_ii + max b - min b) with the slopes s = C̃w + b, |Σ w - 1| and
    -min w. It does not change when C and b are multiplied by the same number.

    Example:
        >>> simplex_residual([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5], [0.75, 0.25])
        0.0
    """
    inverse_norms, cosines, slopes = _scaled_program(matrix, linear)
    given = read_vector(weights, slopes.shape[0], "the weights")
    infeasible = max(abs(float(given.sum()) - 1.0), -float(given.min()), 0.0)
    lengths = given / inverse_norms
    gradient = cosines @ lengths + slopes
    violation = float(lengths @ gradient) * inverse_norms - gradient
    spread = float(np.ptp(slopes / inverse_norms))
    return max(infeasible, float((violation / (np.abs(lengths).sum() + spread * inverse_norms)).max()))


def _scaled_program(matrix: ArrayLike, linear: ArrayLike) -> tuple[Array, Array, Array]:
    """Inverse norms (at most 1), regularised cosines and scaled linear term, all in units of the smallest norm."""
    array = read_square(matrix, "the matrix")
    vector = read_vector(linear, array.shape[0], "the linear term")
    vector = vector - vector.min()
    squares = np.maximum(array.diagonal(), 0.0)
    scale = max(float(squares.max()), float(vector.max()), np.finfo(np.float64).tiny)
    # Variables that do not enter the quadratic form get a norm of the problem's scale: only the ridge acts on them.
    norms = np.sqrt(np.where(squares >= np.finfo(np.float64).tiny, squares, scale))
    cosines = array / norms[:, None] / norms
    cosines = 0.5 * (cosines + cosines.T)
    cosines, _ = add_ridge(cosines)
    smallest = float(norms.min())
    return smallest / norms, cosines, vector / smallest / norms
