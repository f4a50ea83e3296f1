"""Quadratic programmes over the simplex."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.solvers.gramian import SMALLEST_EIGENVALUE, Array, add_ridge, read_square, read_vector, solve_linear
from equipoise.solvers.pivoting import Mask, find_support


class SimplexProgram:
    """min ½ vᵀC v + bᵀv over v ≥ 0, aᵀv = 1, for positive definite C and a > 0, as supports see it."""

    def __init__(self, matrix: Array, linear: Array, share: Array) -> None:
        self._matrix = matrix
        self._linear = linear
        self._share = share

    def solve(self, support: Mask) -> Array:
        solution = np.zeros(support.size)
        where = support.nonzero()[0]
        if where.size == 0:
            return solution
        # The sum constraint eliminates the variable with the largest share, so that no ratio of shares exceeds 1.
        first = int(where[self._share[where].argmax()])
        others = where[where != first]
        largest = float(self._share[first])
        if others.size:
            ratio = self._share[others] / largest
            column = self._matrix[others, first]
            own = float(self._matrix[first, first])
            outer = ratio[:, None] * (column - 0.5 * own * ratio)
            reduced = self._matrix[others[:, None], others] - outer - outer.T
            right = (own * ratio - column) / largest - (self._linear[others] - ratio * self._linear[first])
            solution[others] = solve_linear(reduced, right)
        solution[first] = (1.0 - float(self._share @ solution)) / largest
        return solution

    def slope(self, solution: Array, support: Mask) -> tuple[Array, Array | float]:
        share = self._share
        slope = self._matrix @ solution
        slope += self._linear
        terms = float(np.abs(solution).sum()) + np.abs(self._linear)
        where = support.nonzero()[0]
        if where.size == 0:
            # Nothing is positive: only the best single variable is to enter.
            falling = np.ones(solution.size)
            falling[self._best_alone()] = -1.0
            return falling, 1.0
        first = int(where[share[where].argmax()])
        multiplier = float(slope[first] / share[first])
        slope -= multiplier * share
        return slope, terms + abs(multiplier) * share

    def nearby(self, solution: Array) -> Array:
        positive = np.maximum(solution, 0.0)
        total = float(self._share @ positive)
        if total > 0.0:
            return positive / total
        best = self._best_alone()
        positive[best] = 1.0 / self._share[best]
        return positive

    def _best_alone(self) -> int:
        alone = 1.0 / self._share
        return int((alone * (0.5 * self._matrix.diagonal() * alone + self._linear)).argmin())


def simplex_quadratic_program(matrix: ArrayLike, linear: ArrayLike) -> Array:
    """Minimises ½ wᵀC w + bᵀw over the simplex w ≥ 0, Σ w = 1.

    By an exact active-set method (see :mod:`equipoise.solvers.pivoting`), in variables scaled by √C_ii. The ridge of
    :mod:`equipoise.solvers.gramian` makes the minimiser unique, and symmetric in equal variables.

    Args:
        matrix: C [K, K], symmetric positive semidefinite.
        linear: b [K].

    Returns:
        w [K], non-negative and with sum 1; :func:`simplex_residual` is at most 1e-10.

    Raises:
        InputError: wrong shapes, or entries that are not finite.

    Example:
        >>> simplex_quadratic_program([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5]).tolist()
        [0.75, 0.25]
    """
    share, cosines, slopes = _scaled_program(matrix, linear)
    solution, _ = find_support(SimplexProgram(cosines, slopes, share), np.ones(share.size, dtype=np.bool_))
    weights: Array = solution * share
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
    share, cosines, slopes = _scaled_program(matrix, linear)
    given = read_vector(weights, share.size, "the weights")
    infeasible = max(abs(float(given.sum()) - 1.0), -float(given.min()), 0.0)
    lengths = given / share
    gradient = cosines @ lengths + slopes
    violation = float(lengths @ gradient) * share - gradient
    spread = float(np.ptp(slopes / share))
    return max(infeasible, float((violation / (np.abs(lengths).sum() + spread * share)).max()))


def _scaled_program(matrix: ArrayLike, linear: ArrayLike) -> tuple[Array, Array, Array]:
    """Shares of the sum (inverse norms, at most 1), regularised cosines and linear term in the scaled variables.

    Lengths are in units of the smallest norm √C_ii, and the linear term is shifted to be non-negative.
    """
    array = read_square(matrix, "the matrix")
    vector = read_vector(linear, array.shape[0], "the linear term")
    vector = vector - vector.min()
    squares = array.diagonal()
    tiny = float(np.finfo(np.float64).tiny)
    live = squares >= tiny
    # Variables that do not enter the quadratic form get a norm of the problem's scale, and a ridge of their own.
    scale = max(float(squares.max()), float(vector.max()), tiny)
    norms = np.sqrt(np.where(live, squares, scale))
    cosines = array / norms[:, None] / norms
    cosines = 0.5 * (cosines + cosines.T)
    if live.all():
        cosines, _ = add_ridge(cosines)
    else:
        where = live.nonzero()[0]
        shrunk, _ = add_ridge(cosines[where[:, None], where])
        cosines = SMALLEST_EIGENVALUE * np.eye(norms.size)
        cosines[where[:, None], where] = shrunk
    smallest = float(norms.min())
    return smallest / norms, cosines, vector / smallest / norms
