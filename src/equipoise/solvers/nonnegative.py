"""Quadratic programmes over the non-negative cone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.solvers.gramian import Array, add_ridge, read_square, read_vector, solve_linear
from equipoise.solvers.pivoting import Mask, find_support


class NonnegativeProgram:
    """min ½ vᵀC v - rᵀv over v ≥ 0, for positive definite C with diagonal near 1, as supports see it."""

    def __init__(self, matrix: Array, linear: Array, terms: Array | float = 0.0) -> None:
        self._matrix = matrix
        self._linear = linear
        self._terms = terms

    def solve(self, support: Mask) -> Array:
        where = support.nonzero()[0]
        if where.size == support.size:
            return solve_linear(self._matrix, self._linear)
        solution = np.zeros(support.size)
        if where.size:
            solution[where] = solve_linear(self._matrix[where[:, None], where], self._linear[where])
        return solution

    def slope(self, solution: Array, support: Mask) -> tuple[Array, Array | float]:
        slope = self._matrix @ solution
        slope -= self._linear
        return slope, self._terms + float(np.abs(solution).sum())

    def nearby(self, solution: Array) -> Array:
        nearest: Array = np.maximum(solution, 0.0)
        return nearest


def solve_nonnegative(
    matrix: Array, linear: Array, terms: Array | float = 0.0, support: Mask | None = None
) -> tuple[Array, Mask]:
    """Minimises ½ vᵀC v - rᵀv over v ≥ 0, for positive definite C with diagonal near 1.

    Args:
        matrix: C [K, K].
        linear: r [K].
        terms: size of the numbers that r was formed from by subtraction, below whose rounding nothing is a violation.
        support: a guess of which variables are positive [K]; all of them if left out.

    Returns:
        v [K] and its support [K].
    """
    if support is None:
        support = np.ones(linear.shape[0], dtype=np.bool_)
    return find_support(NonnegativeProgram(matrix, linear, terms), support)


def nonnegative_quadratic_program(matrix: ArrayLike, linear: ArrayLike) -> Array:
    """Minimises ½ vᵀC v - rᵀv over v ≥ 0.

    C is scaled to unit diagonal and regularised as every Gramian here (see :mod:`equipoise.solvers.gramian`), so that
    the minimiser exists and is unique. Variables that do not enter the quadratic form (C_ii = 0) are left at zero.

    Args:
        matrix: C [K, K], symmetric positive semidefinite.
        linear: r [K].

    Returns:
        v [K], with :func:`nonnegative_residual` at most 1e-10.

    Raises:
        InputError: wrong shapes, or entries that are not finite.

    Example:
        >>> nonnegative_quadratic_program([[2.0, 0.0], [0.0, 1.0]], [4.0, -1.0]).round(12).tolist()
        [2.0, 0.0]
    """
    where, norms, cosines, slopes, size = _scaled_program(matrix, linear)
    solution = np.zeros(size)
    magnitude = float(np.abs(slopes).max(initial=0.0))
    if magnitude > 0.0:
        values, _ = solve_nonnegative(cosines, slopes / magnitude)
        solution[where] = values / norms * magnitude
    return solution


def nonnegative_residual(matrix: ArrayLike, linear: ArrayLike, solution: ArrayLike) -> float:
    """How far v is from minimising ½ vᵀC̃ v - rᵀv over v ≥ 0, C̃ being the regularised matrix.

    The largest of the violations of C̃v ≥ r, of v ≥ 0, and of complementarity, in the scaled variables u = √C_ii v and
    relative to max_i |r_i| / √C_ii + Σ u: a number without units that no rescaling of variables changes.

    Example:
        >>> nonnegative_residual([[2.0, 0.0], [0.0, 1.0]], [4.0, -1.0], [2.0, 0.0]) < 1e-15
        True
    """
    where, norms, cosines, slopes, size = _scaled_program(matrix, linear)
    scaled = read_vector(solution, size, "the solution")[where] * norms
    magnitude = float(np.abs(slopes).max(initial=0.0) + np.abs(scaled).sum())
    if magnitude == 0.0:
        return 0.0
    slope = cosines @ scaled - slopes
    mismatch = np.abs(np.minimum(slope, scaled)).max(initial=0.0)
    return float(mismatch / magnitude)


def _scaled_program(matrix: ArrayLike, linear: ArrayLike) -> tuple[NDArray[np.intp], Array, Array, Array, int]:
    array = read_square(matrix, "the matrix")
    size = array.shape[0]
    vector = read_vector(linear, size, "the linear term")
    squares = array.diagonal()
    where = (squares >= np.finfo(np.float64).tiny).nonzero()[0]
    norms = np.sqrt(squares[where])
    cosines = array[where[:, None], where] / norms[:, None] / norms
    cosines, _ = add_ridge(0.5 * (cosines + cosines.T))
    return where, norms, cosines, vector[where] / norms, size
