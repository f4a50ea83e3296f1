"""The gradient of the hypervolume that a set of points dominates, as weights of the points' objectives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError

__all__ = ["hypervolume_residual", "hypervolume_weights", "ranks"]

Array = NDArray[np.float64]


def hypervolume_weights(points: Array, reference: Array) -> Array:
    """What moving a point down in one objective adds, w_ik = -∂HV/∂y_ik ``[n, K]`` (Emmerich and Deutz, 2014).

    That is the area of the facet that point i bounds in direction k: in the other coordinates, the volume that i adds to the
    points that are lower in k. Dominated points, and those beyond the reference, have none; equal points each have what one of
    them would have alone.

    Args:
        points: y ``[n, K]``, lower is better.
        reference: r ``[K]``.

    Raises:
        InputError: other shapes.

    Example:
        >>> hypervolume_weights(np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 2.0]]), np.array([3.0, 3.0])).tolist()
        [[1.0, 1.0], [1.0, 2.0], [0.0, 0.0]]
    """
    y, r = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if y.ndim != 2 or r.shape != y.shape[1:] or not y.shape[1]:
        raise InputError(f"points must be [n, K] and the reference [K]; got {list(y.shape)} and {list(r.shape)}")
    unique, back = np.unique(y, axis=0, return_inverse=True)
    weights = np.zeros_like(unique)
    inside = np.flatnonzero((unique < r).all(axis=1) & (ranks(unique) == 0))
    for k in range(y.shape[1]):
        order = inside[np.argsort(unique[inside, k], kind="stable")]
        rest, corner = np.delete(unique[order], k, axis=1), np.delete(r, k)
        volumes = [_volume(rest[:count], corner) for count in range(len(order) + 1)]
        weights[order, k] = np.maximum(np.diff(volumes), 0.0)
    return weights[back.reshape(-1)]


def hypervolume_residual(points: Array, reference: Array, weights: Array) -> float:
    """How far weights are from Euler's identity Σ_ik w_ik (r_k - y_ik) = K·HV, relative to it; for points that all differ."""
    y, r = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    expected = y.shape[1] * _volume(y[(y < r).all(axis=1)], r)
    found = float((weights * np.where(weights > 0, r - y, 0.0)).sum())
    return abs(found - expected) / expected if expected > 0 else abs(found)


def ranks(points: Array) -> NDArray[np.intp]:
    """Which front each point ``[n, K]`` belongs to: 0 where no other dominates it, 1 where none does but those, and so on.

    Example:
        >>> ranks(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 2.0]])).tolist()
        [0, 0, 1, 2]
    """
    y = np.asarray(points, dtype=np.float64)
    dominates = (y[:, None] <= y).all(axis=2) & (y[:, None] < y).any(axis=2)
    found, left, rank = np.zeros(len(y), dtype=np.intp), np.ones(len(y), dtype=bool), 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(axis=0)
        found[front], left, rank = rank, left & ~front, rank + 1
    return found


def _volume(points: Array, reference: Array) -> float:
    """The volume between points, all below a reference, and it; slice by slice of the last coordinate."""
    if not len(points):
        return 0.0
    if points.shape[1] < 2:
        return float((reference - points.min(axis=0)).prod())
    order = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.diff(np.append(order[:, -1], reference[-1]))
    slices = (_volume(order[: count + 1, :-1], reference[:-1]) for count in range(len(order)))
    return float(sum(area * height for area, height in zip(slices, heights, strict=True) if height > 0))
