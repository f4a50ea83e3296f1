"""The direction nearest to a primary gradient that gives every other task its share of progress."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_square, read_vector, scale_gramian
from equipoise.solvers.nonnegative import nonnegative_quadratic_program, nonnegative_residual

__all__ = ["priority_residual", "priority_weights"]

# A share that is still missed by more than this cannot be given: where constraints contradict each other, multipliers grow from
# round to round and go on missing by about τ.
_MISSED, _ROUNDS = 1e-7, 6


def priority_weights(gramian: ArrayLike, shares: ArrayLike, primary: int = 0) -> Array:
    """Solves min ½‖d − g_p‖² so that ⟨g_j, d⟩ ≥ τ_j ‖g_j‖² for all other tasks j; d = Σ w_i g_i.

    The dual is a programme over multipliers μ ≥ 0, ½ μᵀCμ − rᵀμ with C the Gramian of the others and
    r_j = τ_j C_jj − ⟨g_j, g_p⟩; w_p = 1 and w_j = μ_j. Where the constraints contradict each other (opposed gradients), they
    are dropped and d = g_p.

    Args:
        gramian: Q [K, K].
        shares: τ [K], at least 0; that of the primary is not looked at.
        primary: p.

    Returns:
        w [K], with :func:`priority_residual` at most 1e-9 (0 is of g_p alone, where nothing else can be).

    Raises:
        InputError: wrong shapes, or entries that are not finite.

    Example:
        >>> priority_weights([[1.0, -0.5], [-0.5, 1.0]], [0.0, 0.25]).tolist()
        [1.0, 0.75]
    """
    others, matrix, linear, terms = _programme(gramian, shares, primary)
    weights = np.zeros(len(others) + 1)
    weights[primary] = 1.0
    if not len(others):
        return weights
    multipliers = _multipliers(matrix, linear, terms)
    if multipliers is not None:
        weights[others] = multipliers
    return weights


def priority_residual(gramian: ArrayLike, shares: ArrayLike, weights: ArrayLike, primary: int = 0) -> float:
    """How far w is from the multipliers of :func:`priority_weights`, as :func:`~equipoise.solvers.nonnegative_residual` has it.

    It is 0 where there are none and w is the primary's alone.
    """
    others, matrix, linear, terms = _programme(gramian, shares, primary)
    given = read_vector(weights, len(others) + 1, "the weights")
    own = abs(float(given[primary]) - 1.0)
    if not len(others):
        return own
    if not given[others].any() and _multipliers(matrix, linear, terms) is None:
        return own
    return max(own, nonnegative_residual(matrix, linear, given[others]))


def _programme(gramian: ArrayLike, shares: ArrayLike, primary: int) -> tuple[NDArray[np.intp], Array, Array, Array]:
    """The other tasks, C, r, and the size of the terms that r was formed from."""
    array = read_square(gramian, "the Gramian")
    wanted = read_vector(shares, len(array), "the shares")
    if not 0 <= primary < len(array):
        raise InputError(f"primary must be a position among {len(array)} tasks; got {primary}")
    others = np.delete(np.arange(len(array)), primary)
    # In lengths of the primary, so that nothing leaves the number range.
    size = np.sqrt(max(float(array[primary, primary]), 0.0)) or 1.0
    matrix = array[others[:, None], others] / size / size
    asked, given = wanted[others] * matrix.diagonal(), array[others, primary] / size / size
    return others, matrix, asked - given, np.abs(asked) + np.abs(given)


def _multipliers(matrix: Array, linear: Array, terms: Array) -> Array | None:
    """μ; ``None`` where the constraints contradict each other."""
    found = nonnegative_quadratic_program(matrix, linear)
    shift = scale_gramian(matrix).ridge * matrix.diagonal()
    for _ in range(_ROUNDS):
        # Relative to what a constraint asks for and what the primary gives.
        if not (linear - matrix @ found > _MISSED * terms).any():
            return found
        # The ridge has kept nearly dependent multipliers small. Going on from them, it holds back what is left alone.
        found = nonnegative_quadratic_program(matrix, linear + shift * found)
    return None
