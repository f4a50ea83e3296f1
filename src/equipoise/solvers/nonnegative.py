"""Quadratic programmes over the non-negative cone.

    minimise ½ vᵀC v - rᵀv   subject to   v ≥ 0

Its solution is characterised by C v - r ≥ 0, v ≥ 0, and one of the two being zero for every variable, so that all there
is to find is the *support*: which variables are positive. Block principal pivoting (Júdice and Pires 1994; Kim and Park
2011) guesses the support, solves the linear system on it, and exchanges all variables that came out with the wrong sign
at once; three to six solves are usual whatever K. Exchanging many variables at once can cycle, so after a fixed number
of rounds a primal active-set method (Lawson and Hanson 1974) takes over, which lowers the objective in every round and
therefore cannot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.solvers.gramian import Array, add_ridge, read_square, read_vector, solve_linear

Mask = NDArray[np.bool_]

_EPSILON = float(np.finfo(np.float64).eps)


def solve_on_support(matrix: Array, linear: Array, support: Mask) -> Array:
    """Solves C v = r in the variables of the support; the others are zero. ``linear`` may be [K] or [K, n]."""
    where = support.nonzero()[0]
    if where.size == support.size:
        return solve_linear(matrix, linear)
    solution = np.zeros_like(linear)
    if where.size:
        solution[where] = solve_linear(matrix[where[:, None], where], linear[where])
    return solution


def pivot_nonnegative(
    matrix: Array, linear: Array, magnitude: float = 0.0, support: Mask | None = None
) -> tuple[Array, Mask]:
    """Solves min ½ vᵀC v - rᵀv, v ≥ 0, for positive definite C with diagonal near 1.

    Args:
        matrix: C [K, K], symmetric positive definite.
        linear: r [K].
        magnitude: size of the numbers that were subtracted to form r; differences below rounding at this size do not
            count as violations.
        support: the first guess of which variables are positive [K]; all of them if left out. Not modified.

    Returns:
        v [K] and its support [K].
    """
    size = linear.shape[0]
    support = np.ones(size, dtype=np.bool_) if support is None else support.copy()
    slack = 2.0 * max(size, 8) * _EPSILON
    fewest = size + 1
    chances = 3
    for _ in range(12 + size // 2):
        solution = solve_on_support(matrix, linear, support)
        slope = matrix @ solution
        slope -= linear
        tolerance = slack * (float(np.abs(solution).sum()) + magnitude)
        # Off the support the solution is zero and on it the slope is: each variable has one condition to meet.
        wrong = np.where(support, solution < 0.0, slope < -tolerance)
        count = int(np.count_nonzero(wrong))
        if count == 0:
            return solution, support
        if count < fewest:
            fewest, chances = count, 3
        elif chances > 0:
            chances -= 1
        else:
            # Exchanging single variables, always the last, is Murty's rule, which cannot cycle.
            last = int(wrong.nonzero()[0][-1])
            wrong[:] = False
            wrong[last] = True
        support ^= wrong
    return _descend_nonnegative(matrix, linear, magnitude)


def _descend_nonnegative(matrix: Array, linear: Array, magnitude: float) -> tuple[Array, Mask]:
    """The same by a primal active-set method: slower, but the objective falls from round to round."""
    size = linear.shape[0]
    slack = 2.0 * max(size, 8) * _EPSILON
    support = np.zeros(size, dtype=np.bool_)
    refused = np.zeros(size, dtype=np.bool_)
    current = np.zeros(size)
    for _ in range(10 * size + 10):
        slope = matrix @ current - linear
        tolerance = slack * (float(np.abs(current).sum()) + magnitude)
        slope[support | refused] = np.inf
        entering = int(slope.argmin())
        if not slope[entering] < -tolerance:
            break
        support[entering] = True
        while True:
            target = solve_on_support(matrix, linear, support)
            negative = support & (target <= 0.0)
            if not negative.any():
                break
            where = negative.nonzero()[0]
            # A variable that just entered with zero length and is to leave again entered because of rounding.
            if negative[entering] and current[entering] == 0.0:
                support[entering] = False
                refused[entering] = True
                continue
            ratios = current[where] / (current[where] - target[where])
            step = float(ratios.min())
            current = current + step * (target - current)
            leaving = where[ratios <= step]
            current[leaving] = 0.0
            support[leaving] = False
        else_changed = not np.array_equal(current, target)
        current = target
        if else_changed:
            refused[:] = False
    return current, support


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
        values, _ = pivot_nonnegative(cosines, slopes / magnitude)
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
