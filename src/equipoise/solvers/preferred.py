"""Weights for a point of the Pareto front of one's choice, from losses and Gramian: EPO, PMGDA, FERERO."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_number, read_square, read_vector, solve_linear
from equipoise.solvers.linear import linear_program
from equipoise.solvers.minimum_norm import minimum_norm_point, minimum_norm_residual
from equipoise.solvers.nonnegative import solve_nonnegative
from equipoise.solvers.pivoting import Mask
from equipoise.solvers.simplex import simplex_quadratic_program

__all__ = [
    "bounded_descent",
    "bounded_descent_residual",
    "constant_distance_descent",
    "constant_distance_residual",
    "exact_pareto_program",
    "exact_pareto_weights",
    "least_slack_program",
    "least_slack_weights",
    "ray_descent",
    "ray_descent_residual",
    "ray_distance",
]

# Eigenvalues of cosines below this count as this: constraints that copies of a task cannot meet get weights below 1e6.
_SMALLEST = 1e-6
# Lengths are not told further apart than this.
_FURTHEST = 1e-8
# As for FORUM's dual: how uncertain a squared norm is once a part is taken out.
_ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


def exact_pareto_program(
    gramian: ArrayLike, losses: ArrayLike, preference: ArrayLike, tolerance: float = 1e-4
) -> tuple[Array, Array, Array]:
    """The linear programme of EPO's step: the objective, the rows and the bounds, over the simplex of weights.

    With r the preference, ℓ̂ = r∘ℓ/Σ r_k ℓ_k and its non-uniformity μ = Σ ℓ̂_k log(K ℓ̂_k), the anchor is
    a_k = r_k (log(K ℓ̂_k) − μ). If μ is above the tolerance the step *balances*: max wᵀQa, where a task that would lose along a
    loses no more than there, those of the largest r_k ℓ_k lose nothing, and the others may lose anything; if all along a
    lose, none may. Else it *descends*: max 1ᵀQw, where no task may lose, and wᵀQa ≥ min(0, max Qa).

    Args:
        gramian: Q [K, K].
        losses: ℓ [K], positive.
        preference: r [K], positive. Its size is that of the anchor, and so of what the losers may lose.
        tolerance: of μ.

    Returns:
        c [K], A [2K, K] or [2K + 1, K], b: maximise cᵀw under A w ≥ b and Σ w = 1, where the first K rows are w ≥ 0, all in
        units of the largest gradient.

    Raises:
        InputError: the Gramian is not square or not finite, or losses or preferences are not K positive numbers.
    """
    array = read_square(gramian, "the Gramian")
    size = len(array)
    shares = read_vector(preference, size, "the vector of preferences")
    weighted = shares * read_vector(losses, size, "the vector of losses")
    if not ((shares > 0.0).all() and (weighted > 0.0).all()):
        raise InputError("losses and preferences must be positive")
    # Of the regularised Gramian, for which the minimum-norm point is well within the constraints that nothing may lose.
    live, norms, cosines = _regular(array)
    array = np.zeros_like(array)
    norms = norms / max(float(norms.max(initial=0.0)), np.finfo(np.float64).tiny)
    array[np.ix_(live, live)] = cosines * norms[:, None] * norms
    logarithms = np.log(weighted / weighted.sum() * size)
    uneven = float(weighted @ logarithms) / float(weighted.sum())
    anchor = shares * (logarithms - uneven)
    if float(np.abs(logarithms).max()) < 1e-12:
        anchor = np.zeros(size)  # what is left of even losses is rounding
    along = array @ anchor
    rows, least = [np.eye(size), array], [np.zeros(size), np.zeros(size)]
    if uneven <= tolerance:
        return array.sum(axis=0), np.vstack([*rows, along]), np.append(np.concatenate(least), min(0.0, float(along.max())))
    if (along > 0.0).any():
        worst = weighted >= weighted.max() * (1.0 - 1e-12)
        least[1] = np.where(worst, 0.0, np.where(along > 0.0, -np.inf, along))
    return along, np.vstack(rows), np.concatenate(least)


def exact_pareto_weights(gramian: ArrayLike, losses: ArrayLike, preference: ArrayLike, tolerance: float = 1e-4) -> Array:
    """Weights of EPO's step (Mahapatra and Rajan 2020, "Multi-task learning with user preferences", algorithm 1).

    The linear programme of :func:`exact_pareto_program`; of several solutions, one near equal lengths of all parts. Where its
    constraints exclude each other, as those of the descent can, the last of these is dropped: the paper's relaxed descent.

    Args:
        gramian: Q [K, K].
        losses: ℓ [K], positive.
        preference: r [K], positive.
        tolerance: of the non-uniformity.

    Returns:
        w [K] on the simplex; constraints hold, and the objective is the best, to 1e-6 of their largest coefficient. Unless
        gradients nearly oppose each other, :func:`~equipoise.solvers.linear_program_residual` is at most 1e-8.

    Raises:
        InputError: see :func:`exact_pareto_program`.

    Example:
        >>> exact_pareto_weights([[1.0, 0.0], [0.0, 1.0]], [3.0, 1.0], [0.5, 0.5]).round(9).tolist()
        [1.0, 0.0]
    """
    slope, rows, least = exact_pareto_program(gramian, losses, preference, tolerance)
    size = slope.size
    # Variables are the lengths w_k‖g_k‖, in units of the shortest gradient: what is left of the rows are the cosines.
    norms = np.sqrt(rows[size : 2 * size].diagonal())
    shares = np.where(norms > 0.0, norms.min(initial=np.inf, where=norms > 0.0) / np.where(norms > 0.0, norms, 1.0), 1.0)
    shares = np.maximum(shares, _FURTHEST)
    found = _over_simplex(slope, rows, least, shares)
    if len(rows) > 2 * size and (_violation(rows, least, found) > 1e-9):
        found = _over_simplex(slope, rows[:-1], least[:-1], shares)
    return found


def ray_distance(losses: ArrayLike, preference: ArrayLike) -> tuple[float, Array]:
    """PBI's distance d₂ = ‖ℓ − p̂p̂ᵀℓ‖ of the losses from the ray of p, and its derivative [K], 0 within rounding of the ray.

    Example:
        >>> distance, slope = ray_distance([2.0, 0.0], [1.0, 1.0])
        >>> round(distance, 6), slope.round(6).tolist()
        (1.414214, [0.707107, -0.707107])
    """
    given = np.asarray(losses, dtype=np.float64)
    along = np.asarray(preference, dtype=np.float64)
    along = along / np.linalg.norm(along)
    across = given - float(along @ given) * along
    distance = float(np.linalg.norm(across))
    if distance <= 1e-12 * float(np.linalg.norm(given)):
        return 0.0, np.zeros_like(across)
    return distance, across / distance


def constant_distance_descent(gramian: ArrayLike, slope: ArrayLike) -> Array:
    """Weights of PMGDA's prediction, the common descent that leaves a function h of the losses as it is.

    min ‖Σ μ_i g_i + ν ∇h‖² over the simplex and ν (Zhang et al. 2024, "PMGDA", eq. 11, the dual of eq. 8), ∇h = Σ u_i g_i: ν is
    put in, and what is left is a quadratic programme over the simplex for the parts of the g_i across ∇h.

    Args:
        gramian: Q [K, K].
        slope: u [K], the derivative of h by the losses; 0 for none, which is MGDA.

    Returns:
        w = μ + ν u [K]; :func:`constant_distance_residual` is at most 1e-6.

    Raises:
        InputError: the Gramian is not square or not finite, or the slope is not K finite numbers.

    Example:
        >>> constant_distance_descent([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]).round(9).tolist()
        [0.5, 0.5]
    """
    array = read_square(gramian, "the Gramian")
    given = read_vector(slope, len(array), "the slope")
    live, norms, cosines = _regular(array)
    if len(array) == 1 or not live.all() or not given.any():
        return minimum_norm_point(array)
    norms = norms / float(norms.max())
    array = cosines * norms[:, None] * norms
    products = array @ given
    share = products / float(given @ products)
    across = array - np.outer(products, share)
    across[np.diag_indices_from(across)] += _ROUNDING * len(across) * array.diagonal()
    lengths = simplex_quadratic_program(across, np.zeros(len(array)))
    return lengths - float(share @ lengths) * given


def constant_distance_residual(gramian: ArrayLike, slope: ArrayLike, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`constant_distance_descent`.

    With d = Σ w_i g_i and s = Σ |w_i| ‖g_i‖: the largest of |⟨∇h, d⟩|/(s‖∇h‖), of (‖d‖² − ⟨g_i, d⟩)/(s‖g_i‖), which are at
    most 0 at the shortest d, and of what w − ν u lacks to be on the simplex for some ν, all of the regularised Gramian.

    Example:
        >>> constant_distance_residual([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0], [0.5, 0.5])
        0.0
    """
    array = read_square(gramian, "the Gramian")
    given, found = read_vector(slope, len(array), "the slope"), read_vector(weights, len(array), "the weights")
    live, norms, cosines = _regular(array)
    if len(array) == 1 or not live.all() or not given.any():
        return minimum_norm_residual(array, found)
    norms = norms / float(norms.min())
    total = float(np.abs(found) @ norms)
    gains = cosines @ (found * norms)  # in units of each gradient's length
    across = given * norms
    off = abs(float(across @ gains)) / (total * float(np.sqrt(across @ cosines @ across)))
    wrong = float(((found * norms) @ gains / norms - gains).max()) / total
    # The sum of w − ν u is one condition on ν, or none, and its signs are one per task.
    nu = (found.sum() - 1.0) / given.sum() if abs(given.sum()) > 1e-9 * np.abs(given).sum() else None
    if nu is None:
        falls, rises = given > 0.0, given < 0.0
        highest = float((found[falls] / given[falls]).min(initial=np.inf))
        lowest = float((found[rises] / given[rises]).max(initial=-np.inf))
        short = max(lowest - highest, 0.0) if np.isfinite(lowest - highest) else 0.0
        missing = max(abs(float(found.sum()) - 1.0), short * float(np.abs(given).max()))
    else:
        missing = -float((found - nu * given).min())
    return max(off, wrong, missing / max(1.0, float(np.abs(found).max())), 0.0)


def least_slack_program(gramian: ArrayLike, slope: ArrayLike, sigma: float) -> tuple[Array, Array, Array, Array, Array]:
    """The linear programme of PMGDA's correction, for :func:`~equipoise.solvers.linear_program`.

    Over μ [K + 1] of the simplex, of the unit vectors along g_1 … g_K and ∇h, and t: max t, where every ⟨g_i, d⟩ ≥ t and
    ⟨∇h, d⟩ ≥ σ‖∇h‖ (Zhang et al. 2024, eq. 20, with −t for its α).

    Returns:
        c, A, b and the total; and the factors [K + 1] that make weights of unit vectors of μ.

    Raises:
        InputError: the Gramian is not square or not finite, the slope is not K finite numbers, or σ is not between 0 and 1.
    """
    array = read_square(gramian, "the Gramian")
    size = len(array)
    given = read_vector(slope, size, "the slope")
    if not 0.0 <= read_number(sigma, "sigma") <= 1.0:
        raise InputError(f"sigma is {sigma}; expected a number from 0 to 1")
    unit = float(np.sqrt(array.diagonal().max(initial=0.0)))
    unit = unit if unit > 0.0 else 1.0
    mixed = np.vstack([np.eye(size), given])
    whole = mixed @ (array / unit / unit) @ mixed.T
    norms = np.sqrt(np.clip(whole.diagonal(), 0.0, None))
    factors = np.where(norms > 0.0, 1.0 / np.where(norms > 0.0, norms, 1.0), 0.0)
    # Gains in units of the largest gradient; that of h in units of its own.
    gains = whole * factors / max(float(norms[:-1].max()), np.finfo(np.float64).tiny)
    gains[-1] = whole[-1] * factors * factors[-1]
    rows = np.zeros((2 * size + 2, size + 2))
    rows[: size + 1, : size + 1] = np.eye(size + 1)
    rows[size + 1 :, : size + 1] = gains
    rows[size + 1 : 2 * size + 1, -1] = -1.0
    least = np.zeros(len(rows))
    least[-1] = sigma if norms[-1] > 0.0 else 0.0
    slope_of_all, total = np.zeros(size + 2), np.ones(size + 2)
    slope_of_all[-1], total[-1] = 1.0, 0.0
    return slope_of_all, rows, least, total, factors / unit


def least_slack_weights(gramian: ArrayLike, slope: ArrayLike, sigma: float) -> Array:
    """Weights of PMGDA's correction: h falls at a rate of at least σ‖∇h‖, and the worst task gains what it then can.

    The linear programme of :func:`least_slack_program`. In weights of the tasks, μ_i/‖g_i‖ + u_i μ_h/‖∇h‖ (eq. 18).

    Args:
        gramian: Q [K, K].
        slope: u [K], the derivative of h by the losses.
        sigma: σ, from 0 to 1.

    Returns:
        w [K]; the direction is at most 1 long.

    Raises:
        InputError: see :func:`least_slack_program`.

    Example:
        >>> (least_slack_weights([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0], 1.0).round(9) + 0.0).tolist()
        [1.0, 0.0]
    """
    objective, rows, least, total, factors = least_slack_program(gramian, slope, sigma)
    start = np.append(np.full(len(factors), 1.0 / len(factors)), 0.0)
    shares = linear_program(objective, rows, least, total, start)[:-1] * factors
    weights: Array = shares[:-1] + shares[-1] * np.asarray(slope, dtype=np.float64)
    return weights


def ray_descent(gramian: ArrayLike, losses: ArrayLike, preference: ArrayLike, pull: float = 1.0) -> Array:
    """Weights of FERERO's direction for a ray of losses, H(θ) = B ℓ = 0 with the rows of B spanning what is across p.

    min over d of max_k ⟨g_k, d⟩ + ½‖d‖² subject to ∇Hᵀd + c H = 0 (Chen et al. 2024, "FERERO", with the cone of all
    non-negative vectors). By its gains s = Q w = c ℓ + τ p, one number τ is all that is free, and the programme is the
    minimum of the convex −min_k s_k + ½ sᵀQ⁻¹s, piecewise quadratic in τ: one of its vertices and corners.

    Args:
        gramian: Q [K, K]. Tasks with a zero gradient are left out: their losses do not move.
        losses: ℓ [K].
        preference: p [K], p ≥ 0, not all 0; only ratios matter.
        pull: c ≥ 0.

    Returns:
        w [K]; :func:`ray_descent_residual` is at most 1e-8, against cosines whose eigenvalues are at least 1e-6.

    Raises:
        InputError: the Gramian is not square or not finite, or losses and preferences are not K finite numbers.

    Example:
        >>> ray_descent([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], [1.0, 1.0]).round(9).tolist()
        [0.5, 0.5]
    """
    live, norms, cosines, wanted, ray = _ray(gramian, losses, preference, pull)
    weights = np.zeros(len(live))
    if not live.any():
        return weights
    # Gains in units of each gradient's length; lengths v = √Q_ii w solve C̃ v = s/‖g‖.
    solved = solve_linear(cosines, ray / norms)
    square = float((ray / norms) @ solved)
    tau = _free_part(wanted, ray, square, float((wanted / norms) @ solved)) if square > 0.0 else 0.0
    weights[live] = solve_linear(cosines, (wanted + tau * ray) / norms) / norms
    return weights


def ray_descent_residual(
    gramian: ArrayLike, losses: ArrayLike, preference: ArrayLike, weights: ArrayLike, pull: float = 1.0
) -> float:
    """How far weights are from those of :func:`ray_descent`: whether gains lie on the line c ℓ + τ p, and whether τ is best.

    The first relative to the terms of the gains, the second by how much better another τ is, relative to the terms of that.

    Example:
        >>> ray_descent_residual([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], [1.0, 1.0], [0.5, 0.5])
        0.0
    """
    live, norms, cosines, wanted, ray = _ray(gramian, losses, preference, pull)
    if not live.any():
        return float(np.abs(np.asarray(weights)).max())
    lengths = read_vector(weights, len(live), "the weights")[live] * norms
    gains, terms = cosines @ lengths, np.abs(cosines) @ np.abs(lengths)
    along = ray / norms
    offset = gains - wanted / norms
    tau = float(along @ offset) / float(along @ along)
    off = float((np.abs(offset - tau * along) / np.maximum(terms + np.abs(wanted / norms), 1e-300)).max())
    solved = solve_linear(cosines, along)
    square, mixed = float(along @ solved), float(solved @ (wanted / norms))

    def value(where: float) -> float:
        return where * (0.5 * square * where + mixed) - float((wanted + where * ray).min())

    # The objective is convex, so that a τ is best if none on either side of it is better.
    stride = 1e-3 * max(abs(tau), float(np.abs(wanted).max()), 1.0 / square)
    scale = abs(tau) * (square * abs(tau) + abs(mixed)) + float(np.abs(wanted).max()) + abs(tau) + 1.0 / square
    better = value(tau) - min(value(tau - stride), value(tau + stride))
    return max(off, better / scale)


def _ray(gramian: ArrayLike, losses: ArrayLike, preference: ArrayLike, pull: float) -> tuple[Mask, Array, Array, Array, Array]:
    array = read_square(gramian, "the Gramian")
    size = len(array)
    ray = read_vector(preference, size, "the vector of preferences")
    wanted = read_number(pull, "pull") * read_vector(losses, size, "the vector of losses")
    if (ray < 0.0).any() or not ray.any():
        raise InputError(f"preferences must be at least 0, and not all of them 0; got {ray.tolist()}")
    live, norms, cosines = _regular(array)
    ray, wanted = (ray / ray.max())[live], wanted[live]
    if ray.any():
        # What is wanted along the ray is not: τ is free. Losses on the ray want nothing, and not rounding.
        across = wanted - ray * (float(ray @ wanted) / float(ray @ ray))
        wanted = np.where(np.abs(across) > 8.0 * np.finfo(np.float64).eps * np.abs(wanted).max(initial=0.0), across, 0.0)
    norms, wanted = _in_units(norms, wanted)
    return live, norms, cosines, wanted, ray


def _in_units(norms: Array, gains: Array) -> tuple[Array, Array]:
    """Norms in units of the shortest gradient, gains in its square, kept where their squares stay in the number range."""
    unit = float(norms.min(initial=np.inf))
    with np.errstate(over="ignore"):
        return norms / unit, np.clip(gains / unit / unit, -1e150, 1e150)


def _regular(array: Array) -> tuple[Mask, Array, Array]:
    """Which tasks have a gradient, their norms, and their cosines with eigenvalues of at least 1e-6."""
    live = array.diagonal() >= np.finfo(np.float64).tiny
    norms = np.sqrt(array.diagonal()[live])
    cosines = array[np.ix_(live, live)] / norms[:, None] / norms
    cosines = 0.5 * (cosines + cosines.T)
    if norms.size:
        cosines[np.diag_indices_from(cosines)] = 1.0
        lowest = float(np.linalg.eigvalsh(cosines)[0])
        cosines[np.diag_indices_from(cosines)] += max(0.0, _SMALLEST - 2.0 * lowest)
    return live, norms, cosines


def _free_part(wanted: Array, ray: Array, square: float, mixed: float) -> float:
    """The τ with the least −min_k (m_k + τ p_k) + ½ a τ² + b τ."""
    vertices = (ray - mixed) / square
    slopes = ray[:, None] - ray
    crossing = slopes != 0.0
    corners = (wanted - wanted[:, None])[crossing] / slopes[crossing]
    taus = np.concatenate([vertices, corners[np.abs(corners) < 1e150]])
    values = -(wanted + taus[:, None] * ray).min(axis=1) + taus * (0.5 * square * taus + mixed)
    return float(taus[int(values.argmin())])


def bounded_descent(gramian: ArrayLike, excess: ArrayLike, pull: float = 1.0) -> Array:
    """Weights of FERERO's direction for upper bounds of losses, G(θ) = ℓ − b ≤ 0.

    min over d of max_k ⟨g_k, d⟩ + ½‖d‖² subject to ∇G_kᵀd + c G_k ≤ 0: by gains s = Q w, s_k ≥ t for all k, s_k ≥ c G_k, and
    ½ sᵀQ⁻¹s − t is least. For a given t this is a non-negative quadratic programme, and the weights of the tasks that t bounds
    add up to 1 at the best t, which is found by halving and by straight lines.

    Args:
        gramian: Q [K, K]. Tasks with a zero gradient are left out.
        excess: G [K], losses above their bounds; -inf for a task without a bound.
        pull: c ≥ 0.

    Returns:
        w [K] ≥ 0, the weights that t has of sum 1, and beside these what the bounds need. :func:`bounded_descent_residual` is
        at most 1e-6, if no gradient is 1e5 times as long as one that it opposes.

    Raises:
        InputError: the Gramian is not square or not finite, or an excess is not a number.

    Example:
        >>> bounded_descent([[1.0, 0.0], [0.0, 1.0]], [-np.inf, 2.0]).round(6).tolist()
        [1.0, 2.0]
    """
    array = read_square(gramian, "the Gramian")
    given = np.asarray(excess, dtype=np.float64)
    if given.shape != (len(array),) or np.isnan(given).any() or (given == np.inf).any():
        raise InputError(f"the excess has shape {given.shape}; expected [{len(array)}] numbers below infinity")
    live, norms, cosines = _regular(array)
    weights = np.zeros(len(array))
    if not live.any():
        return weights
    bounded = np.isfinite(given[live])
    norms, least = _in_units(norms, read_number(pull, "pull", above=True) * np.where(bounded, given[live], 0.0))
    least = np.where(bounded, least, -np.inf)

    def solved(gain: float) -> Array:
        return solve_nonnegative(cosines, np.maximum(gain, least) / norms)[0] / norms

    def over(gain: float, *, itself: bool = True) -> float:
        return float(solved(gain)[(least <= gain) if itself else (least < gain)].sum()) - 1.0

    # From bound to bound the sum is continuous and piecewise linear in t, and at a bound it jumps by that task's weight.
    low, high = -np.inf, np.inf
    for bound in np.unique(np.append(least[bounded], 0.0)).tolist():  # where t changes its sign there is a corner as well
        if over(bound, itself=False) >= 0.0:
            high = bound
            break
        if over(bound) >= 0.0:
            weights[live] = solved(bound)
            return weights
        low = bound
    # Without bounds t is at most the squared norm of the shortest gradient, and it is no larger than the largest of all.
    if high == np.inf:
        high = 2.0 + max(low, 0.0)
    if low == -np.inf:
        low = min(high, 0.0) - 1.0
        while over(low) >= 0.0 and low > -1e200:
            low *= 4.0
    below, above = over(low), over(high, itself=False)
    for turn in range(200):
        if high - low <= 4.0 * np.finfo(np.float64).eps * max(abs(low), abs(high)):
            break
        middle = low + (high - low) * (-below / (above - below)) if turn % 3 and above > below else 0.5 * (low + high)
        middle = min(max(middle, low), high)
        value = over(middle)
        if abs(value) <= 1e-13:
            low = high = middle
        elif value < 0.0:
            low, below = middle, value
        else:
            high, above = middle, value
    weights[live] = solved(high)
    return weights


def bounded_descent_residual(gramian: ArrayLike, excess: ArrayLike, weights: ArrayLike, pull: float = 1.0) -> float:
    """How far weights are from those of :func:`bounded_descent`: what bounds and signs lack, or the gap to the dual problem.

    By gains s of the regularised Gramian the problem's value is ½wᵀs − min s, and its dual's −½wᵀs + c Σ ν_k G_k with
    w = λ + ν, λ on the simplex: the best λ takes from the smallest G_k first. All relative to the terms of the two.

    Example:
        >>> bounded_descent_residual([[1.0, 0.0], [0.0, 1.0]], [-np.inf, 2.0], [1.0, 2.0])
        0.0
    """
    array = read_square(gramian, "the Gramian")
    live, norms, cosines = _regular(array)
    found = read_vector(weights, len(array), "the weights")[live]
    if not live.any():
        return 0.0
    given = np.asarray(excess, dtype=np.float64)[live]
    bounded = np.isfinite(given)
    norms, least = _in_units(norms, pull * np.where(bounded, given, 0.0))
    gains = norms * (cosines @ (found * norms))
    terms = norms * (np.abs(cosines) @ np.abs(found * norms))
    shares, left = np.where(bounded, 0.0, found), 1.0 - float(found[~bounded].sum())
    for place in sorted(bounded.nonzero()[0], key=lambda k: least[k]):
        shares[place] = min(max(left, 0.0), found[place])
        left -= shares[place]
    square = float(found @ gains)
    gap = square - float(gains.min()) - float((found - shares) @ least)
    scale = float(np.abs(found) @ terms) + float(terms.max()) + float(np.abs((found - shares) * least).sum())
    lacking = float(((least - gains) / (terms + np.abs(least)))[bounded].max(initial=0.0))
    return max(lacking, gap / scale, max(abs(left), -float(found.min())) / max(1.0, float(np.abs(found).max())))


def _over_simplex(slope: Array, rows: Array, least: Array, shares: Array) -> Array:
    """The programme's w, by lengths w/shares, from equal ones."""
    start = np.full(slope.size, 1.0 / shares.sum())
    found: Array = np.maximum(linear_program(slope * shares, rows * shares, least, shares, start), 0.0) * shares + 0.0
    found /= found.sum()
    return found


def _violation(rows: Array, least: Array, point: Array) -> float:
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-300)
    return float(((least - rows @ point) / scale).max())
