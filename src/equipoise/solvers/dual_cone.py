"""Projections onto the dual cone of the task gradients, the directions along which no loss increases: UPGrad and DualProj.

The dual cone of the g_i is {d : g_iᵀd ≥ 0 for all i}. The projection of Σ u_i g_i on it is Σ w_i g_i with w ≥ u, the
minimiser of wᵀQ w under that constraint (Quinton and Rey 2024, "Jacobian descent for multi-objective optimization",
proposition 1). With y = w - u, in units of the gradients' lengths, this is ½ yᵀC̃ y + (C̃ u)ᵀy over y ≥ 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, ScaledGramian, read_vector, scale_gramian
from equipoise.solvers.nonnegative import solve_nonnegative

_EPSILON = float(np.finfo(np.float64).eps)
# Rounds of exchanges that all projections take together; those that are not done by then are finished one by one.
_ROUNDS = 20
# From this round on only the larger of the wrong signs are exchanged: all at once may cycle.
_FREE = 4
# Steps of projected gradient descent before them, which guess the supports.
_STEPS = 6
# The cosine from which on two tasks have nearly the same gradient.
_ALIKE = 0.9


def dual_cone_projection(gramian: ArrayLike, coefficients: ArrayLike) -> Array:
    """Weights of the projection of a combination of task gradients onto their dual cone.

    min ‖Σ (w_i - u_i) g_i‖² over directions d = Σ w_i g_i with g_iᵀd ≥ 0 (Lopez-Paz and Ranzato 2017, "Gradient episodic
    memory for continual learning", eq. 8 and its dual, eq. 11). Solved exactly by an active-set method; there is nothing
    to regularise unless gradients are dependent, where the ridge of :mod:`equipoise.solvers.gramian` chooses among the
    w that give the same d.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        coefficients: u [K]: what is projected is Σ u_i g_i; u ≥ 0.

    Returns:
        w [K] with w ≥ u; :func:`dual_cone_residual` is at most 1e-10. Tasks with a zero gradient keep u_i.

    Raises:
        InputError: the Gramian is not square or not finite, or the coefficients are negative, not finite or not K.

    Example:
        >>> dual_cone_projection([[1.0, -0.5], [-0.5, 1.0]], [1.0, 0.0]).tolist()
        [1.0, 0.5]
    """
    scaled = scale_gramian(gramian)
    given = _read_coefficients(coefficients, scaled.size)
    weights = given.copy()
    live = scaled.live
    lengths = given[live] * scaled.norms
    largest = float(lengths.max(initial=0.0))
    if largest == 0.0:
        return weights
    lengths /= largest
    products = scaled.cosines @ lengths
    terms = np.abs(scaled.cosines) @ lengths
    added, _ = solve_nonnegative(scaled.cosines, -products, terms, products < 0.0)
    weights[live] += added / scaled.norms * largest
    return weights


def unconflicting_weights(gramian: ArrayLike, preference: ArrayLike) -> Array:
    """Weights of the sum of all task gradients, each projected onto the dual cone and multiplied by its preference.

    Σ_k p_k π(g_k), π being the projection (Quinton and Rey 2024, "Jacobian descent for multi-objective optimization",
    UPGrad, eq. 6). The K programmes have one matrix and differ in their right-hand sides, so they exchange variables side
    by side (block principal pivoting, see :mod:`equipoise.solvers.pivoting`), with a stack of small linear systems per round.
    A few steps of projected gradient descent, for all of them at once, give the first guess.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        preference: p [K], p ≥ 0; 1/K each for the paper's mean.

    Returns:
        w [K] with w ≥ p. Tasks with a zero gradient have weight p_k.

    Raises:
        InputError: the Gramian is not square or not finite, or preferences are negative, not finite or not K.

    Example:
        >>> unconflicting_weights([[1.0, -0.5], [-0.5, 1.0]], [0.5, 0.5]).tolist()
        [0.75, 0.75]
    """
    scaled = scale_gramian(gramian)
    given = _read_coefficients(preference, scaled.size)
    weights = given.copy()
    live = scaled.live
    lengths = given[live] * scaled.norms
    largest = float(lengths.max(initial=0.0))
    if largest == 0.0:
        return weights
    rows = np.flatnonzero(lengths > 0.0)
    added = _projections(scaled, rows)
    weights[live] += ((lengths[rows] / largest) @ added) / scaled.norms * largest
    return weights


def dual_cone_residual(gramian: ArrayLike, coefficients: ArrayLike, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`dual_cone_projection`.

    With lengths x = √Q_ii w and a = √Q_ii u: the largest violation of C̃x ≥ 0, x ≥ a and of complementarity between the
    two, relative to Σ |x|, C̃ being the regularised cosines.

    Example:
        >>> dual_cone_residual([[1.0, -0.5], [-0.5, 1.0]], [1.0, 0.0], [1.0, 0.5])
        0.0
    """
    scaled = scale_gramian(gramian)
    norms = scaled.norms / scaled.norms.max(initial=1e-300)
    least = _read_coefficients(coefficients, scaled.size)[scaled.live] * norms
    lengths = read_vector(weights, scaled.size, "the weights")[scaled.live] * norms
    total = float(np.abs(lengths).sum())
    if total == 0.0:
        return float(np.abs(least).max(initial=0.0))
    mismatch = np.abs(np.minimum(scaled.cosines @ lengths, lengths - least))
    return float(mismatch.max() / total)


def _read_coefficients(values: ArrayLike, size: int) -> Array:
    vector = read_vector(values, size, "the vector of preferences")
    if (vector < 0.0).any():
        raise InputError(f"preferences must be at least 0; got {vector.tolist()}")
    return vector


def _projections(scaled: ScaledGramian, rows: np.ndarray) -> Array:
    """What the projections of some unit gradients add to these, [rows, live], in units of length."""
    cosines = scaled.cosines
    linear = -cosines if rows.size == scaled.live.size else -cosines[rows]
    support = _guess(cosines, linear)
    added = np.zeros_like(linear)
    bordered = np.zeros((len(cosines) + 1, len(cosines) + 1))
    bordered[:-1, :-1] = cosines
    pending = np.arange(rows.size)
    for number in range(_ROUNDS):
        active, right = support[pending], linear[pending]
        solution = _solve_stacked(bordered, right, active)
        slope = solution @ cosines
        slope -= right
        terms = 1.0 + np.abs(solution).sum(axis=1, keepdims=True)
        wrong = np.where(active, solution < 0.0, slope < -16.0 * _EPSILON * terms)
        added[pending] = solution
        if number >= _FREE:
            sizes = np.abs(np.where(active, solution, slope)) * wrong
            wrong &= sizes >= 0.1 * sizes.max(axis=1, keepdims=True)
        support[pending] = active ^ wrong
        pending = pending[wrong.any(axis=1)]
        if pending.size == 0:
            return added
    for row in pending:
        added[row], _ = solve_nonnegative(cosines, linear[row], 1.0, support[row])
    return added


def _guess(cosines: Array, linear: Array) -> np.ndarray:
    """Which variables of min ½ yᵀC̃y - rᵀy over y ≥ 0 are positive after a few steps of projected gradient descent, [n, K]."""
    size = len(cosines)
    powers = cosines @ cosines
    powers = powers @ powers
    # The largest eigenvalue is at most the fourth root of the fourth power's norm; a step may be twice its inverse.
    step = 1.9 / float((powers * powers).sum()) ** 0.125
    matrix = cosines * -step
    matrix.reshape(-1)[:: size + 1] += 1.0
    start = linear * step
    point = np.maximum(start, 0.0)
    for _ in range(_STEPS):
        point = point @ matrix
        point += start
        np.maximum(point, 0.0, out=point)
    guess: np.ndarray = point > 0.0
    alike = cosines > _ALIKE
    if np.count_nonzero(alike) > size:
        # Of tasks with nearly the same gradient one is nearly always enough; together they are badly conditioned.
        one, other = np.triu(alike, 1).nonzero()
        both, first = guess[:, one] & guess[:, other], point[:, one] >= point[:, other]
        guess[:, one] &= ~both | first
        guess[:, other] &= ~both | ~first
    return guess


def _solve_stacked(bordered: Array, right: Array, support: np.ndarray) -> Array:
    """Solves A x = b in the variables of each row's support, the others being zero; ``[n, K]``.

    The systems are padded to the size of the largest with rows of the identity matrix.

    Args:
        bordered: A with a row and a column of zeros behind it, [K + 1, K + 1].
        right: b [n, K].
        support: of each row [n, K].
    """
    size = support.shape[1]
    sizes = support.sum(axis=1)
    largest = int(sizes.max())
    solution = np.zeros_like(right)
    if largest == 0:
        return solution
    # A stable sort of "is not in the support" puts the support's variables first, in their order.
    places = np.argsort(~support, axis=1, kind="stable")[:, :largest]
    outside = np.arange(largest) >= sizes[:, None]
    filled = np.where(outside, size, places)
    systems = bordered.take((filled * (size + 1))[:, :, None] + filled[:, None, :])
    systems.reshape(len(right), -1)[:, :: largest + 1] += outside
    rows = np.arange(len(right))[:, None]
    values = right[rows, places]
    values[outside] = 0.0
    solution[rows, places] = np.linalg.solve(systems, values[:, :, None])[:, :, 0]
    return solution
