"""What a camera sees, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.shapes import Array, dot
from equipoise_papers.scenes.solid import Solid

__all__ = ["Tiles", "Visible", "tiled", "visible"]

_EDGE = 8


@dataclass(frozen=True)
class Tiles:
    """Blocks of 8×8 pixels, and a sphere around the points that each of them sees.

    Attributes:
        pixels: ``[T, 64]``, flat indices; at the edge of the image some occur twice, which does no harm.
        center: ``[3, T]``.
        radius: ``[T]``; negative where a block sees nothing.
    """

    pixels: Array
    center: Array
    radius: Array


def tiled(points: Array, hit: Array, height: int, width: int) -> Tiles:
    """Divides an image.

    Args:
        points: ``[3, H·W]``, what the pixels see.
        hit: ``[H·W]``, whether they see anything.
        height: H.
        width: W.
    """
    down, right = -(-height // _EDGE), -(-width // _EDGE)
    rows = np.minimum(np.arange(down * _EDGE), height - 1).reshape(down, 1, _EDGE, 1)
    columns = np.minimum(np.arange(right * _EDGE), width - 1).reshape(1, right, 1, _EDGE)
    pixels = (rows * width + columns).reshape(down * right, _EDGE * _EDGE)
    empty = ~hit[pixels]
    gathered = points[:, pixels]
    low = np.where(empty, np.inf, gathered).min(2)
    high = np.where(empty, -np.inf, gathered).max(2)
    seen = ~empty.all(1)
    low, high = np.where(seen, low, 0), np.where(seen, high, 0)
    radius = np.where(seen, np.sqrt(np.square(high - low).sum(0)) / 2, -np.inf)
    return Tiles(pixels, (low + high) / 2, radius)


NOTHING = -1


@dataclass(frozen=True)
class Visible:
    """The first hits of all pixels, in float64, from the equations of the solids.

    Attributes:
        depth: ``[H, W]``, planar depth in metres; infinite where nothing is hit.
        solid: ``[H, W]``, index of the solid; −1 where nothing is hit.
        face: ``[H, W]``, which face of it.
        points: ``[3, H·W]``, in the world, metres.
        normals: ``[3, H·W]``, in the world, unit length; (0, 0, 0) where nothing is hit.
        rays: ``[3, H·W]``, in the world, of depth 1.
        pixels: index of a solid → the pixels that see it, as flat indices.
    """

    depth: Array
    solid: Array
    face: Array
    points: Array
    normals: Array
    rays: Array
    pixels: dict[int, Array]


def visible(solids: Sequence[Solid], camera: Camera, height: int, width: int) -> Visible:
    """Casts a ray through every pixel's center; each solid is tried only where its bounding box is in the image."""
    rays = camera.rays(height, width)
    origin = camera.position[:, None]
    depth = np.full((height, width), np.inf)
    index = np.full((height, width), NOTHING, dtype=np.int32)
    windows = camera.windows(np.stack([solid.corners for solid in solids]), height, width)
    for number, (solid, window) in enumerate(zip(solids, windows, strict=True)):
        if window is None:
            continue
        here = rays[:, window[0], window[1]]
        enter, leave = (part.reshape(here.shape[1:]) for part in solid.span(origin, here.reshape(3, -1)))
        nearer = (enter < leave) & (enter > 1e-3) & (enter < depth[window])
        depth[window][nearer] = enter[nearer]
        index[window][nearer] = number

    flat = rays.reshape(3, -1)
    points = origin + flat * np.where(np.isfinite(depth), depth, 0).ravel()
    normals = np.zeros_like(points)
    face = np.zeros(height * width, dtype=np.int32)
    order = np.argsort(index, axis=None, kind="stable")
    seen, starts = np.unique(index.ravel()[order], return_index=True)
    pixels = {int(number): part for number, part in zip(seen, np.split(order, starts[1:]), strict=True)}
    pixels.pop(NOTHING, None)
    for number, own in pixels.items():
        solid = solids[number]
        turned, face[own] = solid.shape.normal(solid.local(points[:, own]))
        normals[:, own] = solid.axes.T @ turned
    length = np.sqrt(dot(normals, normals))
    normals /= np.where(length > 0, length, 1)
    return Visible(depth, index, face.reshape(height, width), points, normals, flat, pixels)
