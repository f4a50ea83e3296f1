"""Fair bargaining between tasks: FairGrad, and Nash-MTL as its case α = 1.

Both ask for positive weights with (Q w)_i = w_i^(-1/α). In units κ of the solution for orthogonal gradients, where all
ω and σ are 1, this is a linear system C̃ (κ ω) = κ σ between weights ω and improvements σ, coupled task by task by the
curve σ = ω^(-1/α). Newton's method in ω is slow wherever ω is small, and in σ wherever ω is large. The remedy is to
give every task one coordinate *along its curve*, which is ω - 1 on the flat arm and α (1 - σ) on the steep one: in that
coordinate both arms are straight, the map is nearly piecewise linear, and full Newton steps converge from ω = 1 in 5
to 30 rounds, whatever the scales and the conflicts are.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.solvers.gramian import Array, accurate_product, read_number, read_vector, solve_linear
from equipoise.solvers.nash import solve_bargaining, strong_tasks

_EPSILON = float(np.finfo(np.float64).eps)
# Logarithms of weights are kept within this, so that weights stay positive and finite.
_LOGARITHM_LIMIT = 600.0
# A start is not taken farther out on a curve than the exponential of this.
_FARTHEST = 200.0
# Newton rounds for one α, and changes of α on the way to it: two to three times what the worst known matrices take.
_ROUNDS = 60
_STAGES = 60


def fair_weights(gramian: ArrayLike, alpha: float, powers: ArrayLike | None = None) -> Array:
    """Weights of the α-fair bargain between the tasks.

    w > 0 with (Q w)_i = w_i^(-1/α) (Ban and Ji 2024, "Fair resource allocation in multi-task learning"): the
    stationary point of the convex ½ wᵀQ w - Σ φ(w_i), φ'(w) = w^(-1/α). α = 1 is Nash bargaining.

    Where gradients cancel exactly there is no solution; that of the regularised Gramian Q̃, which is what is computed,
    has large but finite weights and a direction that is close to zero.

    With p the utilities are weighted, as in (p, α)-proportional fairness (Mo and Walrand 2000, "Fair end-to-end window-based
    congestion control", definition 2): (Q w)_i = (p_i / w_i)^(1/α). Ban and Ji have p = 1.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        alpha: α > 0; small values favour the sum of improvements, large ones the smallest improvement.
        powers: p [K], p ≥ 0; 1 each if left out. A task without power has weight 0.

    Returns:
        w [K], positive, except that tasks with a zero gradient, which no weight can improve, have weight 0.
        :func:`fair_residual` is at most 1e-10 for α from 0.01 on.

    Raises:
        InputError: the Gramian is not square or not finite, alpha is not a positive number, or powers are negative, not finite
            or not K.

    Example:
        >>> fair_weights([[4.0, 0.0], [0.0, 1.0]], alpha=1.0).tolist()
        [0.5, 1.0]
    """
    _check_alpha(alpha)
    scaled, shares = strong_tasks(gramian, powers)
    logarithms = solve_fair(scaled.cosines, np.log(scaled.norms), alpha, shares)
    logarithms -= np.log(scaled.norms)
    np.clip(logarithms, -_LOGARITHM_LIMIT, _LOGARITHM_LIMIT, out=logarithms)
    return scaled.spread(np.exp(logarithms))


def fair_residual(gramian: ArrayLike, alpha: float, weights: ArrayLike, powers: ArrayLike | None = None) -> float:
    """How far weights are from those of :func:`fair_weights`.

    max_i |(Q̃ w)_i - (p_i/w_i)^(1/α)| / Σ_j |Q̃_ij w_j|, with Q̃ the regularised Gramian: the relative change in the entries of
    Q̃ that would make the weights exact. No rescaling of gradients changes it. Without cancellation between gradients
    it equals the relative error of the equation itself up to a factor near 1; with it, it is what can be asked for,
    as (Q̃ w)_i itself is only known to rounding of that sum. Infinite if a weight is not positive.

    Example:
        >>> fair_residual([[4.0, 0.0], [0.0, 1.0]], 2.0, [0.25 ** (2 / 3), 1.0]) < 1e-15
        True
    """
    _check_alpha(alpha)
    scaled, shares = strong_tasks(gramian, powers)
    given = read_vector(weights, scaled.size, "the weights")[scaled.live]
    if given.size == 0:
        return 0.0
    if not (given > 0.0).all():
        return math.inf
    lengths = np.log(given) + np.log(scaled.norms)
    largest = float(lengths.max())
    relative = np.exp(lengths - largest)
    left = accurate_product(scaled.cosines, relative)
    total = np.abs(scaled.cosines) @ relative
    exponent = -np.log(given) / alpha - np.log(scaled.norms) - largest
    if shares is not None:
        exponent += np.log(shares) / alpha
    right = np.exp(np.minimum(exponent, 700.0))
    error = np.abs(left - right)
    # A weight at the limit of the number range should be smaller still; its task is improved more than enough.
    error[(np.log(given) <= -_LOGARITHM_LIMIT + 1e-6) & (left >= right)] = 0.0
    return float((error / total).max())


def _check_alpha(alpha: float) -> None:
    read_number(alpha, "alpha", above=True)


def solve_fair(cosines: Array, log_norms: Array, alpha: float, powers: Array | None = None) -> Array:
    """Logarithms of v = √Q_ii w for the weights w with (Q w)_i = (p_i/w_i)^(1/α).

    Args:
        cosines: C̃ [K, K], positive definite.
        log_norms: log √Q_ii [K].
        alpha: α > 0.
        powers: p [K], p > 0; 1 each if left out.

    Returns:
        log v [K].
    """
    if log_norms.size == 0 or alpha == 1.0:
        return np.log(solve_bargaining(cosines, powers))
    with np.errstate(over="ignore", invalid="ignore"):
        return _solve_fair(cosines, log_norms, alpha, powers)


def _solve_fair(cosines: Array, log_norms: Array, alpha: float, powers: Array | None) -> Array:
    logarithms, converged = _follow_curves(cosines, log_norms, alpha, powers, None)
    if converged:
        return logarithms
    # As α tends to 0 the curves get corners, at which Newton's method may cycle. α then starts from 1, where the curves
    # are hyperbolas, and moves as fast as the method keeps up.
    reached = np.log(solve_bargaining(cosines, powers))
    goal = math.log(alpha)
    done, stride = 0.0, goal
    for _ in range(_STAGES):
        trial = goal if abs(stride) >= abs(goal - done) else done + stride
        logarithms, converged = _follow_curves(cosines, log_norms, math.exp(trial), powers, reached)
        if not converged:
            stride /= 3.0
            continue
        reached, done = logarithms, trial
        if done == goal:
            break
        stride *= 2.0
    return reached


def _follow_curves(
    cosines: Array, log_norms: Array, alpha: float, powers: Array | None, start: Array | None
) -> tuple[Array, bool]:
    """Newton's method in the coordinates along the curves; log v [K], and whether it converged."""
    # κ: the solution of the problem without its off-diagonal entries, where weights and improvements agree.
    log_units = (1.0 - alpha) / (1.0 + alpha) * log_norms
    if powers is not None:
        log_units = log_units + np.log(powers) / (1.0 + alpha)
    units = np.exp(log_units - log_units.max())
    magnitudes = np.abs(cosines)
    steep_scale = -1.0 / alpha
    if start is None:
        position = np.zeros(log_norms.shape[0])
    else:
        begin = np.clip(start - log_units, -_FARTHEST * alpha, _FARTHEST)
        position = np.where(begin >= 0.0, np.expm1(begin), -alpha * np.expm1(begin * steep_scale))
    best, best_error = log_units, math.inf
    for _ in range(_ROUNDS):
        flat = position >= 0.0
        log_weights = np.log(np.where(flat, position, position * steep_scale) + 1.0)
        log_weights *= np.where(flat, 1.0, -alpha)
        weights = np.exp(np.maximum(log_weights, -_LOGARITHM_LIMIT))
        log_weights *= steep_scale
        improvements = np.exp(log_weights)
        lengths = units * weights
        right = units * improvements
        mismatch = cosines @ lengths
        mismatch -= right
        terms = magnitudes @ lengths
        terms *= 4.0
        terms += right
        error = float((np.abs(mismatch) / terms).max())
        converged = best_error <= 1e-13
        if error < best_error:
            best, best_error = log_weights * -alpha, error
        elif converged or math.isnan(error):
            break
        if error <= _EPSILON:
            break
        # -α dσ/dω along the curve.
        improvements /= weights
        system = cosines.copy()
        system.reshape(-1)[:: position.size + 1] += improvements / alpha
        step = solve_linear(system, mismatch)
        step /= units
        position = position - np.where(flat, step, improvements * step)
    return best + log_units, best_error <= 1e-13
