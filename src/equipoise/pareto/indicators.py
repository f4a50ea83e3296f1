"""How good a set of points is, by moocore: hypervolume, distances to a reference front, domination."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import InputError, require

__all__ = ["epsilon", "hypervolume", "igd_plus", "nondominated"]

Array = NDArray[np.float64]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume between the points ``[n, K]`` (lower is better in every entry) and a reference point ``[K]``.

    Points with ``nan`` are left out; those that do not dominate the reference point add nothing.

    Raises:
        InputError: other shapes.
        MissingExtraError: moocore is not installed.

    Example:
        >>> hypervolume([[0, 2], [1, 1], [2, 0]], [3, 3])
        6.0
    """
    rows = _rows(points)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != rows.shape[1:]:
        raise InputError(f"the reference point must have {rows.shape[1]} numbers; it has the shape {list(corner.shape)}")
    return float(_moocore().hypervolume(rows, ref=corner)) if len(rows) else 0.0


def igd_plus(points: ArrayLike, front: ArrayLike) -> float:
    """IGD⁺ (Ishibuchi et al., 2015): mean distance of a front's points to the nearest point, in what is worse there alone.

    Args:
        points: ``[n, K]``, lower is better in every entry.
        front: the front that should be covered, ``[m, K]``.

    Raises:
        InputError: other shapes, or no finite point.
        MissingExtraError: moocore is not installed.

    Example:
        >>> igd_plus([[0, 1], [1, 0]], [[0, 1], [1, 0]])
        0.0
    """
    return float(_moocore().igd_plus(_some(points), ref=_some(front)))


def epsilon(points: ArrayLike, front: ArrayLike) -> float:
    """The additive ε (Zitzler et al., 2003): how far the points must move for each of the front's to be matched or beaten.

    Arguments and errors are those of :func:`igd_plus`.

    Example:
        >>> epsilon([[1, 2], [2, 1]], [[0, 2], [1, 1], [2, 0]])
        1.0
    """
    return float(_moocore().epsilon_additive(_some(points), ref=_some(front)))


def nondominated(points: ArrayLike) -> list[int]:
    """Positions of the points that no other one dominates; of equal ones all, of those with ``nan`` none.

    Raises:
        InputError: other shapes.
        MissingExtraError: moocore is not installed.

    Example:
        >>> nondominated([[1, 3], [2, 2], [3, 3], [3, 1]])
        [0, 1, 3]
    """
    given = _rows(points, finite=False)
    finite = np.flatnonzero(np.isfinite(given).all(axis=1))
    if not len(finite):
        return []
    return [int(place) for place in finite[_moocore().is_nondominated(given[finite], keep_weakly=True)]]


def _moocore() -> Any:
    return require("moocore", "pareto")


def _rows(points: ArrayLike, *, finite: bool = True) -> Array:
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InputError(f"points have the shape [n, K]; got {list(rows.shape)}")
    return rows[np.isfinite(rows).all(axis=1)] if finite else rows


def _some(points: ArrayLike) -> Array:
    rows = _rows(points)
    if not len(rows):
        raise InputError("there is no finite point, and no distance without one")
    return rows
