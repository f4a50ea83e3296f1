"""The direction of equal cosines with all task gradients, as long as what they agree on: ConFIG."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import (
    SMALLEST_EIGENVALUE,
    Array,
    ScaledGramian,
    is_positive_definite,
    read_vector,
    scale_gramian,
    solve_linear,
)

_EPSILON = float(np.finfo(np.float64).eps)


def conflict_free_weights(gramian: ArrayLike, preference: ArrayLike) -> Array:
    """Weights of ConFIG's direction.

    With U the unit gradients and p the preferences, d̂ is the unit vector along U⁺p, whose inner products with the unit
    gradients are proportional to p, and the direction is (Σ_k g_kᵀd̂) d̂ (Liu et al. 2025, "ConFIG: towards conflict-free
    training of physics informed neural networks", eq. 2 and 3). As U⁺ = Uᵀ(U Uᵀ)⁺, everything is in the cosines
    C = U Uᵀ: with c = C⁺p, U⁺p = Uᵀc, ‖Uᵀc‖² = cᵀC c and Σ_k g_kᵀUᵀc = Σ_k ‖g_k‖ (C c)_k.

    Eigenvalues of C below 1e-10 K count as zero. Dependent gradients so have the least-squares direction of the
    pseudo-inverse; where nothing of p is left in the range of C (gradients that cancel exactly), the direction is 0.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        preference: p [K], p ≥ 0; 1 each for the paper's default. Its size does not matter.

    Returns:
        w [K]; :func:`conflict_free_residual` is at most 1e-5, and 1e-12 for well-conditioned gradients. Tasks with a zero
        gradient have weight 0.

    Raises:
        InputError: the Gramian is not square or not finite, or preferences are negative, not finite or not K.

    Example:
        >>> conflict_free_weights([[4.0, 0.0], [0.0, 4.0]], [1.0, 1.0]).round(12).tolist()
        [1.0, 1.0]
    """
    scaled = scale_gramian(gramian)
    given = read_vector(preference, scaled.size, "the vector of preferences")
    if (given < 0.0).any():
        raise InputError(f"preferences must be at least 0; got {given.tolist()}")
    aim = given[scaled.live]
    largest = float(aim.max(initial=0.0))
    if largest == 0.0:
        return np.zeros(scaled.size)
    lengths, reached = _pseudo_inverse(scaled, aim / largest)
    square = float(lengths @ reached)
    if square <= 0.0:
        return np.zeros(scaled.size)
    size = float(scaled.norms @ reached)
    return scaled.spread(lengths * (size / square) / scaled.norms)


def conflict_free_residual(gramian: ArrayLike, preference: ArrayLike, weights: ArrayLike) -> float:
    """How far the direction's inner products with the unit gradients are from what ConFIG asks of them.

    With x = √Q_ii w, the distance of C x from its projection onto the line along C C⁺p, relative to ‖C x‖, and the error of the
    length rule ‖d‖² = (Σ g_k)ᵀd, relative to what the terms of the two sums could be at most; the larger of the two.

    Example:
        >>> conflict_free_residual([[4.0, 0.0], [0.0, 4.0]], [1.0, 1.0], [1.0, 1.0]) < 1e-15
        True
    """
    scaled = scale_gramian(gramian)
    aim = read_vector(preference, scaled.size, "the vector of preferences")[scaled.live]
    largest = float(scaled.norms.max(initial=1e-300))
    lengths = read_vector(weights, scaled.size, "the weights")[scaled.live] * (scaled.norms / largest)
    if not lengths.any():
        return 0.0
    cosines = scaled.cosines - scaled.ridge * np.eye(lengths.size)
    reached = cosines @ lengths
    _, line = _pseudo_inverse(scaled, aim)
    line = line / max(float(np.linalg.norm(line)), 1e-300)
    off = float(np.linalg.norm(reached - (reached @ line) * line) / max(float(np.linalg.norm(reached)), 1e-300))
    norms = scaled.norms / largest
    terms = float((np.abs(lengths) + norms).sum() * np.abs(reached).max())
    return max(off, abs(float((lengths - norms) @ reached)) / max(terms, 1e-300))


def _pseudo_inverse(scaled: ScaledGramian, aim: Array) -> tuple[Array, Array]:
    """C⁺p and C C⁺p."""
    size = aim.size
    cosines = scaled.cosines
    if scaled.ridge == 0.0:
        # The largest eigenvalue is at most K, so all are above the cut-off if this is positive definite.
        shifted = cosines.copy()
        shifted.reshape(-1)[:: size + 1] -= SMALLEST_EIGENVALUE * size
        if is_positive_definite(shifted):
            return solve_linear(cosines, aim), aim
    else:
        cosines = cosines.copy()
        cosines.reshape(-1)[:: size + 1] = 1.0
    values, vectors = np.linalg.eigh(cosines)
    kept = values > SMALLEST_EIGENVALUE * size
    values, vectors = values[kept], vectors[:, kept]
    parts = vectors.T @ aim
    # Eigenvectors are known to the rounding over the gap to zero: what is below that of a part is none.
    noise = 16.0 * size * _EPSILON * np.linalg.norm(aim) * (size / values)
    parts[np.abs(parts) <= noise] = 0.0
    reached = vectors @ parts
    # The length rule multiplies these with norms of any size, so rounding in place of a zero would be amplified.
    reached[np.abs(reached) <= 16.0 * size * _EPSILON * np.linalg.norm(aim)] = 0.0
    return vectors @ (parts / values), reached
