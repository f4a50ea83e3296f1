"""Alignment of the principal components of the task gradients, which is Aligned-MTL."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import SMALLEST_EIGENVALUE, Array, read_square, read_vector

Scale = Literal["min", "median", "rmse"]


def aligned_weights(gramian: ArrayLike, preference: ArrayLike, scale: Scale = "min") -> Array:
    """Weights of the combination of the gradients whose system was made perfectly conditioned.

    Of G = U Σ Vᵀ all singular values are replaced by one, σ: Ĝ = σ U Vᵀ = B G with B = σ U Σ⁻¹ Uᵀ. The direction is
    Ĝᵀp, so the weights are w = B p (Senushkin et al. 2023, "Independent component alignment for multi-task learning",
    algorithm 1). U and Σ² are the eigenvectors and eigenvalues of Q.

    Components with an eigenvalue below 1e-10 of the largest (a singular value below 1e-5) are left out, as those of zero
    are in the paper: they cannot be told from the rounding of single-precision gradients, and the weights would be.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        preference: p [K].
        scale: σ, from the singular values that are not zero: the smallest (the paper), the median (the lower one of two) or
            the root of their mean square.

    Returns:
        w [K]; p itself where all gradients are zero. :func:`aligned_residual` is at most 1e-6, and 1e-12 for
        well-conditioned gradients.

    Raises:
        InputError: the Gramian is not square or not finite, preferences are not K numbers, or there is no such scale.

    Example:
        >>> aligned_weights([[4.0, 0.0], [0.0, 1.0]], [0.5, 0.5]).tolist()
        [0.25, 0.5]
    """
    if scale not in get_args(Scale):
        raise InputError(f'scale must be one of {", ".join(get_args(Scale))}; got "{scale}"')
    array = read_square(gramian, "the Gramian")
    given = read_vector(preference, array.shape[0], "the vector of preferences")
    kept, vectors, _ = _components(array)
    if kept.size == 0:
        return given.copy()
    # In units of the largest component, so that squares stay within the number range.
    sizes = np.sqrt(kept / kept[-1])
    if scale == "min":
        common = sizes[0]
    elif scale == "median":
        common = sizes[(sizes.size - 1) // 2]
    else:
        common = np.sqrt(np.mean(sizes**2))
    weights: Array = vectors @ ((vectors.T @ given) * (common / sizes))
    return weights


def aligned_residual(gramian: ArrayLike, preference: ArrayLike, weights: ArrayLike, scale: Scale = "min") -> float:
    """How far weights are from those of :func:`aligned_weights`: ‖Q w - σ Q^½ p‖ relative to ‖σ Q^½ p‖.

    Q^½ and σ are those of the components kept. 0 where all gradients vanish and the weights are the preferences.

    Example:
        >>> aligned_residual([[4.0, 0.0], [0.0, 1.0]], [0.5, 0.5], [0.25, 0.5])
        0.0
    """
    array = read_square(gramian, "the Gramian")
    given = read_vector(preference, array.shape[0], "the vector of preferences")
    found = read_vector(weights, array.shape[0], "the weights")
    kept, vectors, unit = _components(array)
    if kept.size == 0:
        return float(np.abs(found - given).max())
    largest = float(kept[-1])
    sizes = np.sqrt(kept / largest)
    common = {"min": sizes[0], "median": sizes[(sizes.size - 1) // 2], "rmse": np.sqrt(np.mean(sizes**2))}[scale]
    expected = common * (vectors @ (sizes * (vectors.T @ given)))
    reached = (array / unit / largest) @ found
    return float(np.linalg.norm(reached - expected) / max(float(np.linalg.norm(expected)), 1e-300))


def _components(array: Array) -> tuple[Array, Array, float]:
    """Eigenvalues that are not zero, ascending, their eigenvectors, and the unit that the eigenvalues are in."""
    largest = float(np.abs(array.diagonal()).max())
    if largest < np.finfo(np.float64).tiny:
        return np.empty(0), np.empty((array.shape[0], 0)), 1.0
    symmetric = array / largest
    values, vectors = np.linalg.eigh(0.5 * (symmetric + symmetric.T))
    kept = values > SMALLEST_EIGENVALUE * values[-1]
    # The trace may leave the number range where no entry does.
    fits = largest < 1e300
    return (values[kept] * largest, vectors[:, kept], 1.0) if fits else (values[kept], vectors[:, kept], largest)
