"""The common descent direction of several objectives that also lowers a constraint, from FORUM's dual.

The direction solves (thesis, eq. 3.20), for objectives with gradients g_1 … g_m and a constraint with gradient c,

    min_d max_i ⟨g_i, d⟩ + ½‖d‖²    subject to    ⟨c, d⟩ ≤ −φ,

and is d = −(Σ λ_i g_i + ν c) with the multipliers λ of the simplex and ν ≥ 0 that minimise ½‖Σ λ_i g_i + ν c‖² − ν φ.
Either ν is 0, and λ is the minimum-norm point; or the constraint is active, and putting the best ν in leaves a
quadratic programme over the simplex. One of the two satisfies all conditions, so there is nothing to iterate over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_number, read_square, read_vector
from equipoise.solvers.minimum_norm import minimum_norm_point
from equipoise.solvers.simplex import simplex_quadratic_program

__all__ = ["constrained_descent", "constrained_descent_residual", "constraint_multiplier", "printed_constrained_descent"]

# How uncertain a squared norm is, as a share of it, once the part along c is taken out: rounding, for each of the objectives.
_ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


def constrained_descent(gramian: ArrayLike, phi: float) -> tuple[Array, float]:
    """Multipliers of the common descent direction that lowers a constraint at least as fast as φ asks.

    Solves min ½‖Σ λ_i g_i + ν c‖² − ν φ over λ ≥ 0, Σ λ = 1, ν ≥ 0 (thesis, eq. 3.24, the dual of 3.20), exactly.
    The thesis' eq. 3.25 and 3.27 write 2φ where the conditions of 3.20 give φ; here it is φ.

    Args:
        gramian: Gramian ``[m + 1, m + 1]`` of g_1 … g_m and, last, c.
        phi: φ ≥ 0, the descent that the constraint asks for. Of no effect where c is zero.

    Returns:
        λ ``[m]`` and ν; :func:`constrained_descent_residual` is at most 1e-8.

    Raises:
        InputError: the Gramian is not square, not finite or has a single row, or φ is negative or not finite.

    Example:
        Two objectives agree to go left; the constraint wants to go up by 1.

        >>> gramian = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> weights, multiplier = constrained_descent(gramian, 1.0)
        >>> weights.tolist(), multiplier
        ([0.5, 0.5], 1.0)
    """
    whole, phi = _read(gramian, phi)
    inner, along, square = whole[:-1, :-1], whole[:-1, -1], float(whole[-1, -1])
    if inner.shape[0] == 1:
        alone = np.ones(1)
        return alone, _multiplier(along, square, alone, phi)
    free = minimum_norm_point(inner)
    if _multiplier(along, square, free, phi) == 0.0:
        return free, 0.0
    active = _active(whole, phi)
    multiplier = (phi - float(along @ active)) / square
    if multiplier >= 0.0:
        return active, multiplier
    # Rounding only: in exact arithmetic one of the two cases holds.
    return min(((free, _multiplier(along, square, free, phi)), (active, 0.0)), key=lambda found: _objective(whole, phi, *found))


def printed_constrained_descent(gramian: ArrayLike, phi: float) -> tuple[Array, float]:
    """λ and ν of the programme as the thesis prints it, with 2φ in the bound and φ in the objective (eq. 3.29).

    Solves min ½‖Σ λ_i g_i + ν c‖² − ν φ over the simplex, with ν ≥ 0 and ν ≥ (2φ − ⟨c, Σ λ_i g_i⟩)/‖c‖². The bound lies beyond
    the minimum of the objective, so ν always sits on it or at 0: λ is the minimum-norm point if that has ⟨c, Σ λ_i g_i⟩ of
    2φ or more; or the minimum with ν on its bound if that has 2φ or less; or it lies where both bounds meet.

    Args:
        gramian: Gramian ``[m + 1, m + 1]`` of g_1 … g_m and, last, c.
        phi: φ ≥ 0.

    Returns:
        λ ``[m]`` and ν.

    Raises:
        InputError: as for :func:`constrained_descent`.

    Example:
        >>> printed_constrained_descent(np.eye(3), 1.0)[1]
        2.0
    """
    whole, phi = _read(gramian, phi)
    inner, along, square = whole[:-1, :-1], whole[:-1, -1], float(whole[-1, -1])
    free = minimum_norm_point(inner) if len(inner) > 1 else np.ones(1)
    if square == 0.0 or len(inner) == 1 or along @ free >= 2.0 * phi:
        return free, _multiplier(along, square, free, 2.0 * phi)
    active = _active(whole, phi)
    if along @ active <= 2.0 * phi:
        return active, _multiplier(along, square, active, 2.0 * phi)
    # ½λᵀQλ − τ⟨c, Σ λ_i g_i⟩ grows along c with τ, from the minimum-norm point at τ = 0; where it has 2φ, both bounds meet.
    low, high, below, above = 0.0, phi / square, free, active
    for _ in range(60):
        middle = 0.5 * (low + high)
        found = simplex_quadratic_program(inner, -middle * along)
        if along @ found < 2.0 * phi:
            low, below = middle, found
        else:
            high, above = middle, found
    reached, wanted = along @ (above - below), 2.0 * phi - along @ below
    return below + (above - below) * (wanted / reached if reached > 0.0 else 0.5), 0.0


def constraint_multiplier(gramian: ArrayLike, weights: ArrayLike, phi: float) -> float:
    """The best ν for given λ: max(0, (φ − ⟨c, Σ λ_i g_i⟩)/‖c‖²), 0 where c is zero (thesis, eq. 3.27, with φ for 2φ).

    Args:
        gramian: Gramian ``[m + 1, m + 1]`` of the objectives' gradients and, last, the constraint's.
        weights: λ ``[m]``.
        phi: φ ≥ 0.

    Raises:
        InputError: as for :func:`constrained_descent`, or a wrong number of weights.

    Example:
        >>> constraint_multiplier([[1.0, 0.5], [0.5, 1.0]], [1.0], 0.75)
        0.25
    """
    whole, phi = _read(gramian, phi)
    given = read_vector(weights, whole.shape[0] - 1, "the weights")
    return _multiplier(whole[:-1, -1], float(whole[-1, -1]), given, phi)


def constrained_descent_residual(gramian: ArrayLike, phi: float, weights: ArrayLike, multiplier: float) -> float:
    """How far multipliers are from the optimality conditions of :func:`constrained_descent`.

    The largest of: |Σ λ − 1|, −min λ, −ν ‖c‖/s; the violation of complementarity of the λ_i, max over i of
    (λᵀσ − σ_i)/s² with the slopes σ_i = ⟨g_i, Σ λ_j g_j + ν c⟩; the constraint's, (φ − ⟨c, Σ λ_j g_j + ν c⟩)/(s‖c‖); and its
    complementarity, ν|…|/s². The unit s is the largest of the lengths that d is made of, ‖g_i‖ and φ/‖c‖, so that no
    rescaling of all gradients changes the answer.

    Example:
        >>> constrained_descent_residual([[1.0, 0.5], [0.5, 1.0]], 0.75, [1.0], 0.25)
        0.0
    """
    whole, phi = _read(gramian, phi)
    given = read_vector(weights, whole.shape[0] - 1, "the weights")
    length = float(np.sqrt(whole[-1, -1]))
    scale = float(np.sqrt(whole.diagonal()[:-1].max()))
    if length > 0.0:
        scale = max(scale, phi / length)
    infeasible = max(abs(float(given.sum()) - 1.0), -float(given.min()))
    if scale == 0.0:
        return max(infeasible, -multiplier, 0.0)
    products = whole @ np.append(given, multiplier)
    slopes = products[:-1]
    violation = float((given @ slopes - slopes).max()) / scale**2
    slack = float(products[-1]) - phi if length > 0.0 else 0.0
    return max(
        infeasible,
        -multiplier * length / scale,
        violation,
        -slack / (scale * length) if length > 0.0 else 0.0,
        abs(multiplier * slack) / scale**2,
        0.0,
    )


def _active(whole: Array, phi: float) -> Array:
    """λ where ν sits on its bound; a factor at φ in the bound only moves the minimum's value."""
    inner, along, square = whole[:-1, :-1], whole[:-1, -1], float(whole[-1, -1])
    # With ν = (φ − ⟨c, Σ λ_i g_i⟩)/‖c‖² put in, what is left are the parts of the g_i across c, and a linear term.
    share = along / square
    across = inner - np.outer(along, share)
    # Little is left of a g_i that is nearly parallel to c, and rounding may be most of it: without this, what is left would
    # not be positive semidefinite in units of its own length, and the ridge that repairs that would be large.
    across[np.diag_indices_from(across)] += _ROUNDING * len(across) * inner.diagonal()
    return simplex_quadratic_program(across, phi * share)


def _multiplier(along: Array, square: float, weights: Array, phi: float) -> float:
    return max(0.0, (phi - float(along @ weights)) / square) if square > 0.0 else 0.0


def _objective(whole: Array, phi: float, weights: Array, multiplier: float) -> float:
    both = np.append(weights, multiplier)
    return 0.5 * float(both @ whole @ both) - multiplier * phi


def _read(gramian: ArrayLike, phi: float) -> tuple[Array, float]:
    whole = read_square(gramian, "the Gramian")
    if whole.shape[0] < 2:
        raise InputError("the Gramian has one row; expected those of m ≥ 1 objectives and, last, the constraint")
    phi = read_number(phi, "phi")
    whole = 0.5 * whole + 0.5 * whole.T
    if whole[-1, -1] < np.finfo(np.float64).tiny:
        whole[-1], whole[:, -1] = 0.0, 0.0
        phi = 0.0
    return whole, float(phi)
