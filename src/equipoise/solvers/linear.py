"""Linear programmes of a few variables, solved by projections onto their polyhedron.

The fixed points of x ← Π(x + t c), Π being the projection onto the polyhedron, are the maximisers of cᵀx, and this proximal
point method reaches one in finitely many rounds (Rockafellar 1976). Unlike a vertex that a simplex method ends at, the answer
does not depend on the order of the variables: where several are best, it is one near the start. Every projection is exact:
Goldfarb and Idnani's dual active-set method (1983), which takes up violated constraints one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_array, read_vector

__all__ = ["linear_program", "linear_program_residual"]

# Constraints have rows of length 1 and variables of about 1.
_TOLERANCE = 1e-13
_ROUNDS = 60


def linear_program(objective: ArrayLike, rows: ArrayLike, bounds: ArrayLike, total: ArrayLike, start: ArrayLike) -> Array:
    """The x nearest to the start, or one near it, that maximises cᵀx under A x ≥ b and tᵀx = 1.

    Args:
        objective: c [n].
        rows: A [m, n]; scaled to rows of length 1, and rows of zeros are left out.
        bounds: b [m]; -inf for none.
        total: t [n], not 0.
        start: a point [n].

    Returns:
        x [n]; :func:`linear_program_residual` is at most 1e-9 where there is a feasible point and x is of the size of 1.

    Raises:
        InputError: wrong shapes, or entries that are not finite.

    Example:
        >>> linear_program([1.0, 2.0], np.eye(2), [0.25, 0.0], [1.0, 1.0], [0.5, 0.5]).round(12).tolist()
        [0.25, 0.75]
    """
    slope, normals, least, equal, where = _read(objective, rows, bounds, total, start)
    return _maximized(slope, normals, least, equal, where)


def _maximized(slope: Array, normals: Array, least: Array, equal: Array, start: Array) -> Array:
    point = _projected(start, normals, least, equal)
    if not slope.any():
        return point
    stride, longest = 1.0, 1e12
    for _ in range(_ROUNDS):
        moved = _projected(point + stride * slope, normals, least, equal)
        if stride > 1.0 and float((normals @ moved - least).min(initial=0.0)) < -1e-9 * float(np.abs(moved).max()):
            longest = stride = stride / 10.0  # too far for this polyhedron
            continue
        still = float(np.abs(moved - point).max()) <= 1e-12 * max(stride, float(np.abs(moved).max()))
        point = moved
        # Longer strides are for flat slopes; far points lose digits to rounding, which a last short stride gains back.
        if still and stride == 1.0:
            break
        stride = 1.0 if still else min(10.0 * stride, longest)
    return point


def linear_program_residual(
    objective: ArrayLike, rows: ArrayLike, bounds: ArrayLike, total: ArrayLike, point: ArrayLike
) -> float:
    """How far x is from being best: the largest violation of a constraint, or what one more projection moves x by.

    Constraints are measured with rows of length 1, and c is brought to length 1 across t.

    Example:
        >>> linear_program_residual([1.0, 2.0], np.eye(2), [0.25, 0.0], [1.0, 1.0], [0.25, 0.75]) < 1e-15
        True
    """
    slope, normals, least, equal, given = _read(objective, rows, bounds, total, point)
    infeasible = max(abs(float(equal @ given) - float(equal @ equal)), float((least - normals @ given).max(initial=0.0)))
    return max(infeasible, float(np.abs(_projected(given + slope, normals, least, equal) - given).max()))


def _read(
    objective: ArrayLike, rows: ArrayLike, bounds: ArrayLike, total: ArrayLike, point: ArrayLike
) -> tuple[Array, Array, Array, Array, Array]:
    """The objective across t and of length 1, constraints with rows of length 1, t/‖t‖², and the point."""
    normals = read_array(rows, "the constraints")
    slope = read_array(objective, "the objective")
    if normals.ndim != 2 or slope.shape != normals.shape[1:] or not np.isfinite(normals).all():
        raise InputError(f"the constraints have shape {normals.shape}; expected finite [m, n] with n = {slope.size} variables")
    slope = read_vector(slope, normals.shape[1], "the objective")
    equal = read_vector(total, slope.size, "the total")
    least = read_array(bounds, "the bounds")
    if least.shape != (len(normals),) or np.isnan(least).any() or not equal.any():
        raise InputError(f"the bounds have shape {least.shape}; expected [{len(normals)}] numbers, and a total that is not 0")
    # In units of their largest entry first, for squares of what is far from 1 leave the number range.
    largest = np.abs(normals).max(axis=1, initial=0.0)
    used = (largest > 0.0) & (least > -np.inf)
    normals, least = normals[used] / largest[used, None], least[used] / largest[used]
    lengths = np.linalg.norm(normals, axis=1)
    equal = equal / float(equal @ equal)
    largest_slope = float(np.abs(slope).max(initial=0.0))
    if largest_slope > 0.0:
        slope = slope / largest_slope
        slope = slope - float(slope @ equal) / float(equal @ equal) * equal
        length = float(np.linalg.norm(slope))
        slope = slope / length if length > _TOLERANCE else np.zeros_like(slope)
    return slope, normals / lengths[:, None], least / lengths, equal, read_vector(point, slope.size, "the point")


def _projected(point: Array, normals: Array, least: Array, equal: Array) -> Array:
    """The nearest x with A x ≥ b and eᵀx = eᵀe (Goldfarb and Idnani 1983, with the identity as the Hessian)."""
    square = float(equal @ equal)
    current = point - (float(equal @ point) / square - 1.0) * equal
    unit = equal / np.sqrt(square)
    active: list[int] = []
    multipliers: list[float] = []
    refused: list[int] = []
    tolerance = _TOLERANCE * max(1.0, float(np.abs(point).max()))
    for _ in range(20 * (len(normals) + 10)):
        slack = normals @ current - least
        slack[active + refused] = np.inf
        entering = int(slack.argmin()) if slack.size else -1
        if entering < 0 or slack[entering] >= -tolerance:
            break
        normal, lack, gained = normals[entering], -float(slack[entering]), 0.0
        while True:
            basis = np.column_stack([unit, *(normals[index] for index in active)])
            shares = np.linalg.lstsq(basis, normal, rcond=1e-12)[0]
            across = normal - basis @ shares
            square_across = float(across @ across)
            # How far the multipliers of the others allow to go, and how far it is.
            ratios = [value / share if share > 1e-12 else np.inf for value, share in zip(multipliers, shares[1:], strict=True)]
            allowed = min(ratios, default=np.inf)
            wanted = lack / square_across if square_across > 1e-18 else np.inf
            stride = min(allowed, wanted)
            if stride == np.inf:
                refused.append(entering)  # it depends on active ones: nothing is feasible, or its violation is rounding
                break
            multipliers = [value - stride * share for value, share in zip(multipliers, shares[1:], strict=True)]
            gained += stride
            if wanted < np.inf:
                current = current + stride * across
                lack -= stride * square_across
            if wanted <= allowed:
                active.append(entering)
                multipliers.append(gained)
                break
            leaving = ratios.index(allowed)
            del active[leaving], multipliers[leaving]
    return current
