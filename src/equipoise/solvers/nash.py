"""The Nash bargaining solution between tasks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import (
    Array,
    ScaledGramian,
    accurate_product,
    read_square,
    read_vector,
    scale_gramian,
    solve_linear,
)

# Two to three times what the worst known matrices take.
_ROUNDS = 60
# Damped steps gain a fixed amount of the objective each; hardly any matrix is far enough away for this many.
_DAMPED_ROUNDS = 1000


def nash_bargaining(gramian: ArrayLike, powers: ArrayLike | None = None) -> Array:
    """Weights of the Nash bargaining solution.

    α > 0 with α_i (Q α)_i = 1 (Navon et al. 2022, "Multi-task learning as a bargaining game"): the minimiser of the
    convex ½ αᵀQ α - Σ log α_i. The direction Σ α_i g_i does not depend on the scale of single gradients.

    Where gradients cancel exactly there is no solution; that of the regularised Gramian Q̃, which is what is computed,
    has large but finite weights, and its direction is no longer than √K in any case, as αᵀQ̃ α = K.

    With bargaining powers p it is the asymmetric solution (Kalai 1977, "Nonsymmetric Nash solutions and replications of
    2-person bargaining"), the largest Σ p_i log⟨g_i, d⟩: α_i (Q α)_i = p_i.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        powers: p [K], p ≥ 0; 1 each if left out. A task without power does not bargain and has weight 0.

    Returns:
        α [K], positive, except that tasks with a zero gradient, which no weight can improve, have weight 0.
        :func:`nash_residual` is at most 1e-12, and at most 1e-9 with powers.

    Raises:
        InputError: the Gramian is not square or not finite, or powers are negative, not finite or not K.

    Example:
        >>> nash_bargaining([[4.0, 0.0], [0.0, 1.0]]).tolist()
        [0.5, 1.0]
        >>> nash_bargaining([[4.0, 0.0], [0.0, 1.0]], [1.0, 4.0]).round(12).tolist()
        [0.5, 2.0]
    """
    scaled, shares = strong_tasks(gramian, powers)
    return scaled.spread(solve_bargaining(scaled.cosines, shares) / scaled.norms)


def strong_tasks(gramian: ArrayLike, powers: ArrayLike | None) -> tuple[ScaledGramian, Array | None]:
    """The scaled Gramian, in which tasks without power have no gradient, and the powers of those that are live.

    Raises:
        InputError: the Gramian is not square or not finite, or powers are negative, not finite or not K.
    """
    if powers is None:
        return scale_gramian(gramian), None
    array = read_square(gramian, "the Gramian")
    given = read_vector(powers, array.shape[0], "the vector of powers")
    if (given < 0.0).any():
        raise InputError(f"powers must be at least 0; got {given.tolist()}")
    strong = given > 0.0
    scaled = scale_gramian(array * strong[:, None] * strong)
    return scaled, given[scaled.live]


def nash_residual(gramian: ArrayLike, weights: ArrayLike, powers: ArrayLike | None = None) -> float:
    """How far weights are from those of :func:`nash_bargaining`.

    max_i |α_i (Q̃ α)_i - p_i| / Σ_j |α_i Q̃_ij α_j|, with Q̃ the regularised Gramian: the relative change in the entries
    of Q̃ that would make the weights exact. No rescaling of gradients changes it. Unless gradients cancel, the sum is a
    small number and this is the error of the equation itself; where they do, (Q̃ α)_i is only known to the rounding of
    that sum, and no more can be asked for. Infinite if a weight is not positive.

    Example:
        >>> nash_residual([[4.0, 0.0], [0.0, 1.0]], [0.5, 1.0])
        0.0
    """
    scaled, shares = strong_tasks(gramian, powers)
    lengths = read_vector(weights, scaled.size, "the weights")[scaled.live] * scaled.norms
    if lengths.size == 0:
        return 0.0
    if not (lengths > 0.0).all():
        return math.inf
    error = np.abs(accurate_product(scaled.cosines, lengths) - (1.0 if shares is None else shares) / lengths)
    return float((error / (np.abs(scaled.cosines) @ lengths)).max())


def solve_bargaining(cosines: Array, powers: Array | None = None) -> Array:
    """Solves v_i (C̃ v)_i = p_i, v > 0, for positive definite cosines C̃ [K, K] and powers p > 0 (1 if left out).

    With improvements s = C̃ v this is the intersection of a subspace with the hyperbolas v_i s_i = p_i. Each hyperbola is
    given the coordinate p = v - s, in which both of its arms are straight; Newton's method in p takes full steps and
    needs 4 to 20 of them, where in v it would creep along the steep arm.
    """
    size = cosines.shape[0]
    if powers is not None:
        return _solve_powers(cosines, powers)
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


def _solve_powers(cosines: Array, powers: Array) -> Array:
    """The same with powers. Their mean is brought to 1, and v goes with its root.

    p = v - s is a coordinate for the hyperbolas v s = p too.
    """
    if powers.size == 0:
        return powers
    unit = math.sqrt(float(powers.mean()))
    shares = powers / unit / unit
    lengths = np.sqrt(shares) * math.sqrt(1.0 / float(np.sqrt(shares) @ cosines @ np.sqrt(shares)) * powers.size)
    best, least = lengths, math.inf
    position = lengths - shares / lengths
    for _ in range(2 * _ROUNDS):
        root = 0.5 * (np.abs(position) + np.sqrt(position * position + 4.0 * shares))
        lengths = np.where(position >= 0.0, root, shares / root)
        improvements = np.where(position >= 0.0, shares / root, root)
        mismatch = cosines @ lengths - improvements
        error = float((np.abs(mismatch) / (np.abs(cosines) @ lengths)).max())
        if not error < least and least < 1e-12:
            break
        if error < least:
            best, least = lengths, error
        slopes = improvements / lengths
        system = cosines.copy()
        system.reshape(-1)[:: powers.size + 1] += slopes
        position = position - (1.0 + slopes) * solve_linear(system, mismatch)
    if least > 1e-9:
        best = solve_bargaining_damped(cosines, best, shares)
    return best * unit


def solve_bargaining_damped(cosines: Array, start: Array, powers: Array | None = None) -> Array:
    """The same by damped Newton steps on ½ vᵀC̃ v - Σ p_i log v_i, which is self-concordant in units of the least power.

    Slow where gradients cancel, but certain to converge from any start > 0 (Nesterov and Nemirovskii 1994).
    """
    lengths = start
    shares: Array | float = 1.0 if powers is None else powers
    least = 1.0 if powers is None else float(powers.min())
    for _ in range(_DAMPED_ROUNDS):
        inverse = 1.0 / lengths
        gradient = cosines @ lengths - shares * inverse
        system = cosines.copy()
        system.reshape(-1)[:: lengths.size + 1] += shares * (inverse * inverse)
        step = solve_linear(system, gradient)
        decrement = math.sqrt(max(float(gradient @ step), 0.0) / least)
        lengths = lengths - (step / (1.0 + decrement) if decrement > 0.25 else step)
        if decrement < 1e-8:
            break
    return lengths
