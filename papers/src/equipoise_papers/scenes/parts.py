"""Short ways to write down solids in the frame of the thing that they are a part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from equipoise_papers.scenes.arrays import Array
from equipoise_papers.scenes.material import Material
from equipoise_papers.scenes.shapes import Box, Ellipsoid, Frustum, prism
from equipoise_papers.scenes.solid import Solid, turn

__all__ = ["ball", "block", "limb", "rod", "wedge"]

Point: TypeAlias = Sequence[float] | Array
_UPRIGHT = np.eye(3)


def block(
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    label: int,
    material: Material,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
) -> Solid:
    """A box from its lower to its upper bounds, metres; turned about its middle."""
    bounds = np.array([x, y, z], dtype=float)
    axes = turn(yaw, pitch).T if yaw or pitch else _UPRIGHT
    return Solid(Box((bounds[:, 1] - bounds[:, 0]) / 2), bounds.mean(1), axes, int(label), material)


def rod(
    x: float, z: float, y: tuple[float, float], radius: float, label: int, material: Material, top: float | None = None
) -> Solid:
    """An upright round thing; ``top`` is the radius of its upper end if that differs."""
    shape = Frustum(radius, radius if top is None else top, (y[1] - y[0]) / 2)
    return Solid(shape, np.array([x, (y[0] + y[1]) / 2, z]), _UPRIGHT, int(label), material)


def limb(start: Point, end: Point, radius: float, label: int, material: Material, thin: float = 1.0) -> Solid:
    """A round thing from one point to another; its radius ends at ``thin`` times what it begins with."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    along = last - first
    length = float(np.linalg.norm(along))
    along /= length
    aside = np.cross(along, [0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [1.0, 0.0, 0.0])
    aside /= np.linalg.norm(aside)
    axes = np.stack([aside, along, np.cross(aside, along)])
    return Solid(Frustum(radius, radius * thin, length / 2), (first + last) / 2, axes, int(label), material)


def ball(centre: Point, radii: Point | float, label: int, material: Material) -> Solid:
    """A sphere, or an ellipsoid with three radii."""
    extent = np.broadcast_to(np.asarray(radii, float), (3,)).copy()
    return Solid(Ellipsoid(extent), np.asarray(centre, float), _UPRIGHT, int(label), material)


def wedge(outline: Sequence[tuple[float, float]], x: tuple[float, float], label: int, material: Material) -> Solid:
    """A convex outline in the (z, y) plane, drawn out along x."""
    shape, middle = prism(outline, (x[1] - x[0]) / 2)
    return Solid(shape, middle + np.array([(x[0] + x[1]) / 2, 0.0, 0.0]), _UPRIGHT, int(label), material)
