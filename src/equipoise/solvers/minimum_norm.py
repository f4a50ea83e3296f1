"""The point of smallest norm in the convex hull of the task gradients, which MGDA steps along."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.solvers.gramian import Array, accurate_product, read_vector, scale_gramian
from equipoise.solvers.nonnegative import solve_nonnegative


def minimum_norm_point(gramian: ArrayLike) -> Array:
    """Weights of the point of smallest norm in the convex hull of the task gradients.

    min wᵀQ w over w ≥ 0, Σ w = 1 (Désidéri 2012; Sener and Koltun 2018, eq. 3), by an exact active-set method.
    Up to its length, w solves a programme without the sum constraint: with v = √Q_ii w, it is the minimiser of
    ½ vᵀC̃ v - Σ v_i / √Q_ii over v ≥ 0.

    A task with a zero gradient *is* the point of smallest norm and takes all the weight (several share it). Where the
    minimiser is not unique, the ridge chooses the one with the smallest Σ Q_ii w_i², so equal tasks get equal weights.

    Args:
        gramian: Gramian Q of the task gradients [K, K].

    Returns:
        w [K], non-negative and with sum 1; :func:`minimum_norm_residual` is at most 1e-10.

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> minimum_norm_point([[4.0, 0.0], [0.0, 1.0]]).tolist()
        [0.2, 0.8]
    """
    scaled = scale_gramian(gramian)
    size = scaled.size
    if scaled.live.size < size:
        idle = np.full(size, 1.0 / (size - scaled.live.size))
        idle[scaled.live] = 0.0
        return idle
    if size == 1:
        return np.ones(1)
    if size == 2:
        # Unless the longer gradient reaches beyond the shorter one, the point is the foot of the normal on their line.
        first, second = scaled.norms.tolist()
        cosine, one = scaled.cosines[0].tolist()[1], 1.0 + scaled.ridge
        ratio = min(first, second) / max(first, second)
        longer = max(ratio * (one * ratio - cosine), 0.0)
        shorter = one - cosine * ratio
        longer /= longer + shorter
        return np.array([1.0 - longer, longer] if first <= second else [longer, 1.0 - longer])
    # Dividing by the smallest norm keeps the linear term within (0, 1].
    inverse_norms = scaled.norms.min() / scaled.norms
    solution, _ = solve_nonnegative(scaled.cosines, inverse_norms)
    weights: Array = solution * inverse_norms
    weights /= weights.sum()
    return weights


def minimum_norm_residual(gramian: ArrayLike, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`minimum_norm_point`.

    The largest of max_j (wᵀQ̃w - (Q̃w)_j) / (√Q_jj Σ_i w_i √Q_ii), |Σ w - 1| and -min w, with Q̃ the regularised Gramian.
    The first is the violation of optimality along gradient j, in units of the lengths that make it up: no rescaling of
    the gradients changes it. With a zero gradient among the tasks it is the weight that the others hold.

    Example:
        >>> minimum_norm_residual([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
        0.0
    """
    scaled = scale_gramian(gramian)
    given = read_vector(weights, scaled.size, "the weights")
    infeasible = max(abs(float(given.sum()) - 1.0), -float(given.min()), 0.0)
    if scaled.live.size < scaled.size:
        return max(infeasible, float(np.abs(given[scaled.live]).sum()))
    # Relative to the smallest norm, as norms may be so small or large that their products leave the number range.
    norms = scaled.norms / scaled.norms.min()
    lengths = given * norms
    products = accurate_product(scaled.cosines, lengths)
    violation = (lengths @ products) / norms - products
    return max(infeasible, float(violation.max() / np.abs(lengths).sum()))


def pareto_distance(gramian: ArrayLike, *, relative: bool = True) -> float:
    """How far a point is from Pareto stationarity, where some convex combination of the task gradients vanishes.

    √(min wᵀQ w) over w ≥ 0, Σ w = 1, which is 0 at a Pareto stationary point and nowhere else (the LDC-MTL paper, Definition
    2). ``relative`` takes every task gradient in units of its own length: Q is replaced by its cosines Q_ij/√(Q_ii Q_jj). The
    zeros are the same, the units of the losses no longer matter, and the number lies between 0 and 1: it is 1 where all
    gradients point the same way (or there is but one), 1/√K where all are orthogonal. A task without a gradient is at its own
    optimum, which makes any point Pareto stationary: 0.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        relative: whether each gradient is measured by its own length; otherwise the result is in the gradients' units.

    Returns:
        The distance. Rounding in Q counts with its root: what is below 1e-6 (of the longest gradient) is 0.

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> round(pareto_distance([[4.0, 0.0], [0.0, 1.0]]), 4), round(pareto_distance([[4.0, -2.0], [-2.0, 1.0]]), 4)
        (0.7071, 0.0)
        >>> round(pareto_distance([[4.0, 0.0], [0.0, 1.0]], relative=False), 4)  # 1/√(1/4 + 1)
        0.8944
    """
    scaled = scale_gramian(gramian)
    if scaled.live.size < scaled.size:
        return 0.0
    norms = np.ones(scaled.size) if relative else scaled.norms
    longest = float(norms.max())
    cosines = scaled.cosines - scaled.ridge * np.eye(scaled.size)
    lengths = minimum_norm_point(scaled.cosines * norms[:, None] / longest * norms / longest) * norms / longest
    return longest * float(np.sqrt(max(float(lengths @ cosines @ lengths), 0.0)))
