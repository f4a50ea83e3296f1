"""The inner problem of ConicGrad: the best worst-case improvement among the directions near the mean gradient's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.conflict_averse import relative_to_mean
from equipoise.solvers.gramian import (
    Array,
    ScaledGramian,
    accurate_product,
    read_number,
    read_vector,
    scale_gramian,
    solve_linear,
)
from equipoise.solvers.minimum_norm import minimum_norm_point
from equipoise.solvers.nonnegative import solve_nonnegative
from equipoise.solvers.pivoting import Mask

_ROUNDS = 100
_ENOUGH = 1e-12
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)


def conic_weights(gramian: ArrayLike, cosine: float) -> Array:
    """Weights w of the tasks that hold ConicGrad's direction back, those that it improves least.

    max over d of min_k g_kᵀd, with cos(d, g_0) ≥ c and ‖d‖ = ‖g_0‖, g_0 being the mean gradient (Hassanpour et al. 2025,
    "Fantastic multi-task gradient updates and how to find them in a cone"). Where the point of smallest norm in the convex
    hull lies in the cone, it is the direction and w are its weights. Else d = g_0 + Σ v_i g_i on the cone's boundary with
    v ≥ 0, and w is v with sum 1: d is the projection of g_0 on {d : g_kᵀd ≥ m}, which turns away from g_0 as m grows, so that
    m is the root of a function of one variable, each value of which is a non-negative quadratic programme with C̃. On one set
    of positive v it is a quadratic equation, solved as it stands; the sets are gone through with a bracket around the root.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        cosine: c between 0 and 1: 1 is the mean gradient alone (the weights do not matter and are uniform), 0 a half-space.

    Returns:
        w [K], non-negative and with sum 1; :func:`conic_residual` is at most 1e-6, and 1e-9 unless gradients are dependent.
        Tasks with a zero gradient share all the weight if the cone has a direction that no other task loses from; else they
        have none.

    Raises:
        InputError: the Gramian is not square or not finite, or c is not between 0 and 1.

    Example:
        >>> conic_weights([[4.0, 0.0], [0.0, 1.0]], 0.9).round(6).tolist()  # the first task is the better off
        [0.0, 1.0]
    """
    scaled = scale_gramian(gramian)
    weights, _ = _solve(scaled, _check(cosine), gramian)
    return weights


def conic_direction(gramian: ArrayLike, cosine: float) -> Array:
    """Coefficients of ConicGrad's direction d = Σ coefficients_i g_i, see :func:`conic_weights`; ‖d‖ = ‖g_0‖.

    Example:
        >>> conic_direction([[4.0, 0.0], [0.0, 1.0]], 1.0).tolist()
        [0.5, 0.5]
    """
    scaled = scale_gramian(gramian)
    _, coefficients = _solve(scaled, _check(cosine), gramian)
    return coefficients


def conic_residual(gramian: ArrayLike, cosine: float, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`conic_weights`.

    The largest of |Σ w - 1|, -min w and max_j (Σ_i w_i g_iᵀd - g_jᵀd)/(‖g_j‖ ‖g_0‖), d being the direction in the cone that
    goes furthest along Σ w_i g_i: at the solution no task improves less than those with weight do. With weight on zero
    gradients alone, it is what the direction that no other task loses from lacks to lie in the cone. All with the regularised
    Gramian.

    Example:
        >>> conic_residual([[1.0, 0.0], [0.0, 1.0]], 0.5, [0.5, 0.5]) < 1e-15
        True
    """
    scaled = scale_gramian(gramian)
    given = read_vector(weights, scaled.size, "the weights")
    infeasible = max(abs(float(given.sum()) - 1.0), -float(given.min()), 0.0)
    if _check(cosine) == 1.0 or scaled.live.size == 0:
        return infeasible
    inverse_norms, alignment, _ = relative_to_mean(scaled)
    lengths = given[scaled.live] / inverse_norms
    if not lengths.any():
        return max(infeasible, cosine - _seen(scaled.cosines, alignment, np.zeros_like(alignment))[1])
    pull = accurate_product(scaled.cosines, lengths)
    along = float(alignment @ lengths)
    across = math.sqrt(max(math.fsum((lengths * pull).tolist()) - along**2, 0.0))
    length = math.hypot(along, across)
    if along >= cosine * length:
        gains = pull / length
    else:
        # The part of g_w across g_0 says which way to turn, as far as the cone goes.
        sine = math.sqrt(1.0 - cosine**2)
        gains = (cosine - sine * along / across) * alignment + sine / across * pull
    value = float(lengths @ gains)
    violation = float((value * inverse_norms - gains).max())
    if scaled.live.size < scaled.size:
        violation = max(violation, value / float(np.abs(lengths).sum()))
    return max(infeasible, violation)


def _check(cosine: float) -> float:
    if read_number(cosine, "cosine") > 1.0:
        raise InputError(f"cosine is {cosine}; expected a number between 0 and 1")
    return float(cosine)


def _seen(cosines: Array, alignment: Array, least: Array, support: Mask | None = None) -> tuple[Array, float, Mask]:
    """The direction nearest to g_0/‖g_0‖ along which each task's unit gradient gains its ``least`` or more.

    Returns what is added to g_0/‖g_0‖ [k], the direction's cosine with g_0, and which tasks hold it back.
    """
    bound = least - alignment
    added, support = solve_nonnegative(cosines, bound, np.abs(least) + np.abs(alignment), support)
    # In units of the largest number, for squares may leave the number range.
    unit = max(float(added.max()), 1.0)
    one, part = 1.0 / unit, added / unit
    along = one + float(alignment @ part)
    # By complementarity the added part's square is its product with the bound.
    square = 2.0 * one * along - one**2 + float(part @ (bound / unit))
    return added, along / math.sqrt(square) if square > 0.0 else 0.0, support


def _solve(scaled: ScaledGramian, cosine: float, gramian: ArrayLike) -> tuple[Array, Array]:
    size = scaled.size
    uniform = np.full(size, 1.0 / size)
    if cosine == 1.0 or scaled.live.size == 0:
        return uniform, uniform.copy()
    inverse_norms, alignment, mean_length = relative_to_mean(scaled)
    cosines = scaled.cosines
    if scaled.live.size == size:
        weights = minimum_norm_point(gramian)
        lengths = weights / inverse_norms
        unit = float(lengths.max())
        lengths /= unit
        length = math.sqrt(max(math.fsum((lengths * accurate_product(cosines, lengths)).tolist()), 0.0))
        if length > 0.0 and float(alignment @ lengths) >= (cosine - _ENOUGH) * length:
            return weights, weights * (mean_length / unit / length)
        added, idle = _boundary(cosines, alignment, inverse_norms, cosine), False
    else:
        # A zero gradient gains nothing, so all that can be asked is that no other task loses.
        added, seen, _ = _seen(cosines, alignment, np.zeros_like(alignment))
        idle = seen >= cosine - _ENOUGH
        if not idle:
            added = _boundary(cosines, alignment, inverse_norms, cosine, high=0.0)
    unit = max(float(added.max()), 1.0)
    one, part = 1.0 / unit, added / unit
    square = one**2 + 2.0 * one * float(alignment @ part) + math.fsum((part * accurate_product(cosines, part)).tolist())
    moved = part * inverse_norms
    coefficients = (one * uniform + scaled.spread(mean_length * moved)) / math.sqrt(max(square, 1e-300))
    if idle:
        weights = np.full(size, 1.0 / (size - scaled.live.size))
        weights[scaled.live] = 0.0
        return weights, coefficients
    total = float(moved.sum())
    return (scaled.spread(moved / total) if total > 0.0 else uniform), coefficients


def _boundary(cosines: Array, alignment: Array, inverse_norms: Array, cosine: float, high: float = math.inf) -> Array:
    """What is added to g_0/‖g_0‖ where the least gain, below ``high``, is as large as the cone allows."""
    # Gains are in units of ‖g_0‖ times the smallest norm. At the first, g_0 itself has the least gain.
    low = float((alignment / inverse_norms).min())
    best, support = np.zeros_like(alignment), alignment / inverse_norms <= low
    step, value, repeated = max(abs(low), 1.0), low, False
    for _ in range(_ROUNDS):
        root = None if repeated else _root(cosines, alignment, inverse_norms, cosine, support, low, high)
        if root is None:
            root = low + step if math.isinf(high) else 0.5 * (low + high)
            step *= 4.0
        settled = not math.isinf(high) and high - low <= _ROUNDING * max(abs(low), abs(high))
        if settled or root == value or not low < root < high:
            break
        value, before = root, support
        added, seen, support = _seen(cosines, alignment, value * inverse_norms, support)
        # The equation of the same tasks would give the same root again: what is left then is rounding.
        repeated = bool((support == before).all())
        if abs(seen - cosine) <= (1e-9 if repeated else _ENOUGH):
            return added
        if seen > cosine:
            low, best = value, added
        else:
            high = value
    return best


def _root(
    cosines: Array, alignment: Array, inverse_norms: Array, cosine: float, support: Mask, low: float, high: float
) -> float | None:
    """The gain at which the direction leaves the cone as long as these tasks hold it back; none between the bounds."""
    where = support.nonzero()[0]
    if where.size == 0:
        return None
    part, bound = cosines[where[:, None], where], inverse_norms[where]
    slope, start = solve_linear(part, bound), -solve_linear(part, alignment[where])
    # With x = start + m slope, g_0ᵀd = 1 + aᵀx and ‖d‖² = 1 + aᵀstart + m² boundᵀslope.
    at_zero, grows = 1.0 + float(alignment[where] @ start), float(alignment[where] @ slope)
    constant = at_zero**2 - cosine**2 * at_zero
    linear = 2.0 * at_zero * grows
    quadratic = grows**2 - cosine**2 * float(bound @ slope)
    discriminant = linear**2 - 4.0 * quadratic * constant
    if discriminant < 0.0:
        return None
    half = -0.5 * (linear + math.copysign(math.sqrt(discriminant), linear))
    roots = [constant / half] if half != 0.0 else []
    roots += [half / quadratic] if quadratic != 0.0 else []
    inside = [root for root in roots if low < root < high and at_zero + root * grows > 0.0]
    return min(inside) if inside else None
