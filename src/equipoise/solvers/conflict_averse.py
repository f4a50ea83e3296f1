"""The inner problem of CAGrad: the best worst-case improvement near the mean gradient."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, ScaledGramian, accurate_product, read_number, read_vector, scale_gramian
from equipoise.solvers.minimum_norm import minimum_norm_point
from equipoise.solvers.nonnegative import NonnegativeProgram, solve_nonnegative

# Ratio of the sum of lengths to the length of the sum from which on rounding deserves attention.
_CANCELLATION = 1e3
_FAR_APART = 1e140
_NO_LENGTH = 1e-6


def conflict_averse_weights(gramian: ArrayLike, c: float, preference: ArrayLike | None = None) -> Array:
    """Weights of CAGrad's dual problem.

    min F(w) = g_wᵀg_0 + c ‖g_0‖ ‖g_w‖ over the simplex (Liu et al. 2021, "Conflict-averse gradient descent",
    algorithm 1), where g_w = Σ w_i g_i and g_0 is the mean gradient; from the Gramian, g_wᵀg_0 = wᵀQ1 / K and
    ‖g_w‖² = wᵀQ w.

    F is homogeneous, so its minimum λ is the root of a convex function of one variable, each value of which is a
    non-negative quadratic programme with C̃; Newton's method from above (Dinkelbach 1967) finds it in a few steps and
    cannot overshoot. All quantities are those of the regularised Gramian, so F is smooth where gradients cancel.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        c: radius of the search around the mean gradient, relative to its length; c ≥ 0. With c = 0 the weights do not
            matter, and are uniform.
        preference: p [K], p ≥ 0: g_0 is then Σ p_i g_i / Σ p; the mean if left out.

    Returns:
        w [K], non-negative and with sum 1; :func:`conflict_averse_residual` is at most 1e-8, and 1e-12 unless
        gradients nearly cancel. Tasks with a zero gradient share all the weight if no combination of the others
        improves on 0, the value of F there; else they have none.

    Raises:
        InputError: the Gramian is not square or not finite, or c or a preference is negative or not finite.

    Example:
        >>> conflict_averse_weights([[4.0, 0.0], [0.0, 1.0]], c=0.5).round(6).tolist()
        [0.0, 1.0]
    """
    _check_radius(c)
    scaled = scale_gramian(gramian)
    weights, _ = _solve(scaled, c, _shares(scaled, preference))
    return weights


def conflict_averse_direction(gramian: ArrayLike, c: float, preference: ArrayLike | None = None) -> Array:
    """Coefficients of CAGrad's update direction.

    d = g_0 + c ‖g_0‖ g_w / ‖g_w‖ (Liu et al. 2021, "Conflict-averse gradient descent", algorithm 1) with the weights of
    :func:`conflict_averse_weights`, written as Σ coefficients_i g_i. The paper's d is not divided by 1 + c².

    ‖g_w‖ is taken from the regularised Gramian and is therefore never zero. As g_w tends to 0, which takes c ≥ 1 and a
    Pareto-stationary point, d tends to the solution of the paper's primal problem, the direction within c ‖g_0‖ of the
    mean gradient that no task loses from: d = 0 if there is no other. Where all gradients vanish, so does d.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        c: radius of the search around the mean gradient, relative to its length; c ≥ 0.
        preference: p [K], p ≥ 0: g_0 is then Σ p_i g_i / Σ p; the mean if left out.

    Returns:
        Coefficients [K]; those of tasks with a zero gradient are 1 / K, or p_i / Σ p.

    Raises:
        InputError: the Gramian is not square or not finite, or c or a preference is negative or not finite.

    Example:
        >>> conflict_averse_direction([[4.0, 0.0], [0.0, 1.0]], c=0.0).tolist()
        [0.5, 0.5]
    """
    _check_radius(c)
    scaled = scale_gramian(gramian)
    shares = _shares(scaled, preference)
    _, extra = _solve(scaled, c, shares)
    return (1.0 / scaled.size if shares is None else shares) + extra


def conflict_averse_residual(gramian: ArrayLike, c: float, weights: ArrayLike, preference: ArrayLike | None = None) -> float:
    """How far weights are from those of :func:`conflict_averse_weights`.

    The largest violation of ∂F/∂w_j ≥ F, each divided by (1 + c) ‖g_j‖ ‖g_0‖, of Σ w = 1 and of w ≥ 0, with the lengths
    of the regularised Gramian; the first is a difference of cosines and does not change with the scale of the
    gradients. With c = 0 only the constraints are looked at.

    Example:
        >>> conflict_averse_residual([[1.0, 0.0], [0.0, 1.0]], 0.5, [0.5, 0.5]) < 1e-15
        True
    """
    _check_radius(c)
    scaled = scale_gramian(gramian)
    given = read_vector(weights, scaled.size, "the weights")
    infeasible = max(abs(float(given.sum()) - 1.0), -float(given.min()), 0.0)
    if c == 0.0 or scaled.live.size == 0:
        return infeasible
    inverse_norms, alignment, length = relative_to_mean(scaled, _shares(scaled, preference))
    if length == 0.0:
        return infeasible
    # The lengths of the parts of g_w, in units of the smallest gradient.
    lengths = given[scaled.live] / inverse_norms
    pull = accurate_product(scaled.cosines, lengths)
    length = math.sqrt(max(math.fsum((lengths * pull).tolist()), 0.0))
    if length == 0.0:
        # All weight on zero gradients, F = 0: no unit combination may point away from g_0 by a cosine below -c.
        away, _ = solve_nonnegative(scaled.cosines, -alignment)
        return max(infeasible, math.sqrt(max(-float(alignment @ away), 0.0)) - c)
    slopes = alignment + c * pull / length
    value = float(lengths @ slopes)
    violation = float((value * inverse_norms - slopes).max())
    if scaled.live.size < scaled.size:
        violation = max(violation, value / float(np.abs(lengths).sum()))
    return max(infeasible, violation / (1.0 + c))


def imbalance_direction(gramian: ArrayLike, c: float, preference: ArrayLike | None = None) -> Array:
    """Coefficients of IMGrad's update direction: that of CAGrad, whose worst-off task is chosen by how unbalanced tasks are.

    d = g_0 + c ‖g_0‖ g_w / ‖g_w‖ with w the minimiser of (1.5 - s) g_wᵀg_0 + s c ‖g_0‖ ‖g_w‖ over the simplex, s being the
    cosine between g_0 and the point of smallest norm in the convex hull (the code of Zhou et al. 2025, "Injecting imbalance
    sensitivity for multi-task learning"). That is :func:`conflict_averse_weights` with the radius c s / (1.5 - s): twice c
    where both point the same way, and towards 0, where the task that g_0 serves least has all the weight, as they part.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        c: radius of the search around the mean gradient, relative to its length; c ≥ 0.
        preference: as for :func:`conflict_averse_direction`.

    Returns:
        Coefficients [K], as :func:`conflict_averse_direction`. Where the point of smallest norm is 0 up to rounding, s is 0;
        the radius is then as good as 0, so that of several tasks that are served least the combination of least norm is taken.

    Raises:
        InputError: the Gramian is not square or not finite, or c is negative or not finite.

    Example:
        >>> imbalance_direction([[1.0, 0.0], [0.0, 1.0]], 0.5).tolist()
        [0.75, 0.75]
    """
    _check_radius(c)
    scaled = scale_gramian(gramian)
    shares = _shares(scaled, preference)
    mean = np.full(scaled.size, 1.0 / scaled.size) if shares is None else shares
    if c == 0.0 or scaled.live.size == 0:
        return mean
    cosine = 0.0
    if scaled.live.size == scaled.size:
        inverse_norms, alignment, _ = relative_to_mean(scaled, shares)
        lengths = minimum_norm_point(gramian) / inverse_norms
        square = math.fsum((lengths * accurate_product(scaled.cosines, lengths)).tolist())
        # Rounding in Q counts with its root.
        if square > (_NO_LENGTH * float(lengths.sum())) ** 2:
            cosine = min(max(float(alignment @ lengths) / math.sqrt(square), 0.0), 1.0)
    share = max(cosine / (1.5 - cosine), _NO_LENGTH)
    _, extra = _solve(scaled, c * share, shares)
    return mean + extra / share


def _check_radius(c: float) -> None:
    read_number(c, "c")


def _shares(scaled: ScaledGramian, preference: ArrayLike | None) -> Array | None:
    """The preferences [K] divided by their sum; as they are if all are 0."""
    if preference is None:
        return None
    given = read_vector(preference, scaled.size, "the vector of preferences")
    if (given < 0.0).any():
        raise InputError(f"preferences must be at least 0; got {given.tolist()}")
    total = float(given.sum())
    return given / total if total > 0.0 else given


def relative_to_mean(scaled: ScaledGramian, shares: Array | None = None) -> tuple[Array, Array, float]:
    """Inverse norms (at most 1), cosines of every task with the mean gradient, and the mean's length.

    Norms are in units of the smallest norm in the first, and so is the length.
    """
    smallest = float(scaled.norms.min())
    norms = scaled.norms / smallest
    inverse_norms = 1.0 / norms
    # Squares of norms that are further apart than this leave the number range; the mean then goes by the largest.
    unit = float(norms.max()) if float(norms.max()) > _FAR_APART else 1.0
    norms = norms / unit
    if shares is not None:
        norms = norms * (scaled.size * shares[scaled.live])
        if not norms.any():
            return inverse_norms, np.zeros_like(norms), 0.0
    products = scaled.cosines @ norms
    if float(norms @ products) * _CANCELLATION**2 < float(norms.sum()) ** 2:
        products = accurate_product(scaled.cosines, norms)
    length = math.sqrt(float(norms @ products))
    return inverse_norms, products / length, length / scaled.size * unit


def _solve(scaled: ScaledGramian, c: float, shares: Array | None) -> tuple[Array, Array]:
    """The weights, and the coefficients of c ‖g_0‖ g_w / ‖g_w‖."""
    size = scaled.size
    nothing = np.zeros(size)
    if c == 0.0 or scaled.live.size == 0:
        return np.full(size, 1.0 / size), nothing
    inverse_norms, alignment, mean_length = relative_to_mean(scaled, shares)
    if mean_length == 0.0:
        return np.full(size, 1.0 / size), nothing
    cosines = scaled.cosines
    # F at the single tasks and at the mean, in units of the mean's length times the smallest norm.
    at_tasks = (alignment + c * math.sqrt(1.0 + scaled.ridge)) / inverse_norms
    value = min(float(at_tasks.min()), (1.0 + c) * mean_length)
    solution = np.zeros_like(alignment)
    support = None
    for _ in range(50):
        bound = value * inverse_norms
        linear = bound - alignment
        candidate, support = solve_nonnegative(cosines, linear, np.abs(bound) + np.abs(alignment), support)
        if float(candidate.sum()) > _CANCELLATION * c:
            # Gradients nearly cancel: one step of iterative refinement, or the length would lose half its digits.
            error = linear - accurate_product(cosines, candidate)
            candidate = candidate + NonnegativeProgram(cosines, error).solve(support)
        # ‖candidate‖² in C̃, without the cancellation that the quadratic form itself would suffer.
        length = math.sqrt(max(float(candidate @ linear), 0.0))
        if length == 0.0:
            break
        solution = candidate / length
        lower = (float(alignment @ solution) + c) / float(inverse_norms @ solution)
        if not lower < value or abs(length - c) <= 1e-13 * c:
            break
        value = lower
    if not solution.any():
        solution[int(at_tasks.argmin())] = 1.0 / math.sqrt(1.0 + scaled.ridge)
    if value >= 0.0 and scaled.live.size < size:
        idle = np.full(size, 1.0 / (size - scaled.live.size))
        idle[scaled.live] = 0.0
        return idle, nothing
    weights = solution * inverse_norms
    weights /= weights.sum()
    return scaled.spread(weights), scaled.spread(c * mean_length * solution * inverse_norms)
