"""Fair bargaining between tasks: FairGrad, and Nash-MTL as its case α = 1.

Both ask for positive weights with (Q w)_i = w_i^(-1/α). In units κ of the solution for orthogonal gradients, where all
ω and σ are 1, this is a linear system C̃ (κ ω) = κ σ between weights ω and improvements σ, coupled task by task by the
curve σ = ω^(-1/α). Newton's method in ω is slow wherever ω is small, and in σ wherever ω is large. The remedy is to give
every task one coordinate *along its curve*, which is ω - 1 on the flat arm and α (1 - σ) on the steep one: in that
coordinate both arms are straight, the map is nearly piecewise linear, and full Newton steps converge from ω = 1 in 5
to 30 rounds whatever α, the scales and the conflicts are.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_vector, scale_gramian, solve_linear

_EPSILON = float(np.finfo(np.float64).eps)
# Logarithms of weights are kept within this, so that weights stay positive and finite.
_LOGARITHM_LIMIT = 690.0
_ROUNDS = 200


def fair_weights(gram: ArrayLike, alpha: float) -> Array:
    """Weights of the α-fair bargain between the tasks.

    w > 0 with (Q w)_i = w_i^(-1/α) (Ban and Ji 2024, "Fair resource allocation in multi-task learning"): the
    stationary point of the convex ½ wᵀQ w - Σ φ(w_i), φ'(w) = w^(-1/α). α = 1 is Nash bargaining.

    Where gradients cancel exactly there is no solution; that of the regularised Gramian Q̃, which is what is computed,
    has large but finite weights and a direction that is close to zero.

    Args:
        gram: Gramian Q of the task gradients [K, K].
        alpha: α > 0; small values favour the sum of improvements, large ones the smallest improvement.

    Returns:
        w [K], positive, except that tasks with a zero gradient, which no weight can improve, have weight 0.
        :func:`fair_residual` is at most 1e-12.

    Raises:
        InputError: the Gramian is not square or not finite, or alpha is not a positive number.

    Example:
        >>> fair_weights([[4.0, 0.0], [0.0, 1.0]], alpha=1.0).tolist()
        [0.5, 1.0]
    """
    _check_alpha(alpha)
    scaled = scale_gramian(gram)
    logarithms = solve_fair(scaled.cosines, np.log(scaled.norms), alpha)
    logarithms -= np.log(scaled.norms)
    np.clip(logarithms, -_LOGARITHM_LIMIT, _LOGARITHM_LIMIT, out=logarithms)
    return scaled.spread(np.exp(logarithms))


def fair_residual(gram: ArrayLike, alpha: float, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`fair_weights`.

    max_i |(Q̃ w)_i - w_i^(-1/α)| / Σ_j |Q̃_ij w_j|, with Q̃ the regularised Gramian: the relative change in the entries of
    Q̃ that would make the weights exact. No rescaling of gradients changes it. Without cancellation between gradients
    it equals the relative error of the equation itself up to a factor near 1; with it, it is what can be asked for,
    as (Q̃ w)_i itself is only known to rounding of that sum. Infinite if a weight is not positive.

    Example:
        >>> fair_residual([[4.0, 0.0], [0.0, 1.0]], 2.0, [0.25 ** (2 / 3), 1.0]) < 1e-15
        True
    """
    _check_alpha(alpha)
    scaled = scale_gramian(gram)
    given = read_vector(weights, scaled.size, "the weights")[scaled.live]
    if given.size == 0:
        return 0.0
    if not (given > 0.0).all():
        return math.inf
    lengths = np.log(given) + np.log(scaled.norms)
    largest = float(lengths.max())
    relative = np.exp(lengths - largest)
    left = scaled.cosines @ relative
    total = np.abs(scaled.cosines) @ relative
    exponent = -np.log(given) / alpha - np.log(scaled.norms) - largest
    right = np.exp(np.minimum(exponent, 700.0))
    error = np.abs(left - right)
    # A weight at the limit of the number range should be smaller still; its task is improved more than enough.
    error[(np.log(given) <= -_LOGARITHM_LIMIT + 1e-6) & (left >= right)] = 0.0
    return float((error / total).max())


def _check_alpha(alpha: float) -> None:
    if not (math.isfinite(alpha) and alpha > 0.0):
        raise InputError(f"alpha is {alpha}; expected a finite number > 0")


def solve_fair(cosines: Array, log_norms: Array, alpha: float) -> Array:
    """Logarithms of v = √Q_ii w for the weights w with (Q w)_i = w_i^(-1/α).

    Args:
        cosines: C̃ [K, K], positive definite.
        log_norms: log √Q_ii [K].
        alpha: α > 0.

    Returns:
        log v [K].
    """
    size = log_norms.shape[0]
    if size == 0:
        return np.zeros(0)
    # κ: the solution of the problem without its off-diagonal entries, where weights and improvements agree.
    log_units = (1.0 - alpha) / (1.0 + alpha) * log_norms
    log_units -= log_units.max()
    units = np.exp(log_units)
    magnitudes = np.abs(cosines)
    diagonal = cosines.diagonal()
    position = np.zeros(size)
    log_weights = np.zeros(size)
    improvements = np.ones(size)
    best = math.inf
    best_log_weights = log_weights
    for _ in range(_ROUNDS):
        lengths = units * np.exp(log_weights)
        right = units * improvements
        mismatch = cosines @ lengths
        mismatch -= right
        total = magnitudes @ lengths
        error = float((np.abs(mismatch) / (right + 4.0 * total)).max())
        if error < best:
            best, best_log_weights = error, log_weights
        if error <= 2.0 * _EPSILON or (best <= 1e-13 and error > 0.5 * best and error != best):
            break
        # -dσ/dω along the curve; the linear system is scaled symmetrically to a diagonal of ones.
        steepness = np.minimum(improvements * np.exp(-log_weights), 1e300)
        pull = steepness / alpha
        scaling = 1.0 / np.sqrt(diagonal + pull)
        system = cosines * scaling
        system *= scaling[:, None]
        system.reshape(-1)[:: size + 1] = 1.0
        step = solve_linear(system, mismatch * scaling)
        step *= scaling
        step /= units
        position = position - np.where(position >= 0.0, step, steepness * step)
        flat = np.log1p(np.maximum(position, 0.0))
        steep = np.minimum(position, 0.0) / -alpha
        log_weights = flat - alpha * np.log1p(steep)
        improvements = np.exp(-flat / alpha) + steep
    return best_log_weights + log_units
