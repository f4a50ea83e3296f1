"""The Nash bargaining solution between tasks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.solvers.gramian import Array, accurate_product, read_vector, scale_gramian, solve_linear

# Two to three times what the worst known matrices take.
_ROUNDS = 60
# Damped steps gain a fixed amount of the objective each; hardly any matrix is far enough away for this many.
_DAMPED_ROUNDS = 1000


def nash_bargaining(gramian: ArrayLike) -> Array:
    """Weights of the Nash bargaining solution.

    α > 0 with α_i (Q α)_i = 1 (Navon et al. 2022, "Multi-task learning as a bargaining game"): the minimiser of the
    convex ½ αᵀQ α - Σ log α_i. The direction Σ α_i g_i does not depend on the scale of single gradients.

    Where gradients cancel exactly there is no solution; that of the regularised Gramian Q̃, which is what is computed,
    has large but finite weights, and its direction is no longer than √K in any case, as αᵀQ̃ α = K.

    Args:
        gramian: Gramian Q of the task gradients [K, K].

    Returns:
        α [K], positive, except that tasks with a zero gradient, which no weight can improve, have weight 0.
        :func:`nash_residual` is at most 1e-12.

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> nash_bargaining([[4.0, 0.0], [0.0, 1.0]]).tolist()
        [0.5, 1.0]
    """
    scaled = scale_gramian(gramian)
    return scaled.spread(solve_bargaining(scaled.cosines) / scaled.norms)


def nash_residual(gramian: ArrayLike, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`nash_bargaining`.

    max_i |α_i (Q̃ α)_i - 1| / Σ_j |α_i Q̃_ij α_j|, with Q̃ the regularised Gramian: the relative change in the entries
    of Q̃ that would make the weights exact. No rescaling of gradients changes it. Unless gradients cancel, the sum is a
    small number and this is the error of the equation itself; where they do, (Q̃ α)_i is only known to the rounding of
    that sum, and no more can be asked for. Infinite if a weight is not positive.

    Example:
        >>> nash_residual([[4.0, 0.0], [0.0, 1.0]], [0.5, 1.0])
        0.0
    """
    scaled = scale_gramian(gramian)
    lengths = read_vector(weights, scaled.size, "the weights")[scaled.live] * scaled.norms
    if lengths.size == 0:
        return 0.0
    if not (lengths > 0.0).all():
        return math.inf
    error = np.abs(accurate_product(scaled.cosines, lengths) - 1.0 / lengths)
    return float((error / (np.abs(scaled.cosines) @ lengths)).max())


def solve_bargaining(cosines: Array) -> Array:
    """Solves v_i (C̃ v)_i = 1, v > 0, for positive definite cosines C̃ [K, K].

    With improvements s = C̃ v this is the intersection of a subspace with the hyperbolas v_i s_i = 1. Each hyperbola is
    given the coordinate p = v - s, in which both of its arms are straight; Newton's method in p takes full steps and
    needs 4 to 20 of them, where in v it would creep along the steep arm.
    """
    size = cosines.shape[0]
    if size <= 2:
        # The solution is unique and two tasks are interchangeable, so both lengths are equal.
        equal: Array = 1.0 / np.sqrt(cosines.sum(axis=1))
        return equal
    # The best guess with equal lengths.
    lengths = np.full(size, math.sqrt(size / float(cosines.sum())))
    improvements = 1.0 / lengths
    position = lengths - improvements
    previous = math.inf
    for _ in range(_ROUNDS):
        mismatch = cosines @ lengths
        mismatch -= improvements
        squares = improvements * improvements
        system = cosines.copy()
        system.reshape(-1)[:: size + 1] += squares
        step = solve_linear(system, mismatch)
        decrement = math.sqrt(max(float(mismatch @ step), 0.0))
        squares += 1.0
        step *= squares
        position = position - step
        # The larger of the two roots is free of cancellation, and the other its inverse.
        root = np.abs(position)
        root += np.sqrt(position * position + 4.0)
        root *= 0.5
        inverse = 1.0 / root
        ahead = position >= 0.0
        lengths = np.where(ahead, root, inverse)
        # Convergence is quadratic, so the step from here was the last that matters; or else it was down to rounding.
        if decrement < 1e-8 or (decrement < 1e-3 and decrement > 0.5 * previous):
            return lengths
        previous = decrement
        improvements = np.where(ahead, inverse, root)
    return solve_bargaining_damped(cosines, lengths)


def solve_bargaining_damped(cosines: Array, start: Array) -> Array:
    """The same by damped Newton steps on ½ vᵀC̃ v - Σ log v_i, which is self-concordant.

    Slow where gradients cancel, but certain to converge from any start > 0 (Nesterov and Nemirovskii 1994).
    """
    lengths = start
    for _ in range(_DAMPED_ROUNDS):
        inverse = 1.0 / lengths
        gradient = cosines @ lengths - inverse
        system = cosines.copy()
        system.reshape(-1)[:: lengths.size + 1] += inverse * inverse
        step = solve_linear(system, gradient)
        decrement = math.sqrt(max(float(gradient @ step), 0.0))
        lengths = lengths - (step / (1.0 + decrement) if decrement > 0.25 else step)
        if decrement < 1e-8:
            break
    return lengths
