"""Which light reaches which point.

One shadow ray a pixel and light. Pixels of a 4×4 block aim at 16 different points of the light, and the mean over a block
around each pixel, among pixels of the same face only, is the share of the light that is seen: soft shadows for the price of
hard ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipoise.data.scenes.arrays import Array, dot
from equipoise.data.scenes.rendering.lights import Light
from equipoise.data.scenes.solid import Solid

__all__ = ["BLOCK", "ambient", "block_mean", "lit", "pattern"]

BLOCK = 4
_ORDER = np.array([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5])  # neighbours take samples that are far apart


def pattern(height: int, width: int) -> Array:
    """``[H·W]``: which of the 16 samples each pixel takes."""
    rows, columns = np.arange(height) % BLOCK, np.arange(width) % BLOCK
    return _ORDER[(rows[:, None] * BLOCK + columns[None, :])].ravel()


def _squares() -> Array:
    """``[2, 16]``: points spread evenly over the unit square."""
    number = np.arange(BLOCK * BLOCK)
    return np.stack([(number % BLOCK + 0.5) / BLOCK, ((number // BLOCK + 0.5) / BLOCK + 0.13 * (number % BLOCK)) % 1])


def lit(solids: Sequence[Solid], light: Light, points: Array, samples: Array) -> Array:
    """Tries one point of a light a pixel.

    Args:
        solids: what may be in between.
        light: the light.
        points: ``[3, N]`` float32, a little off their surfaces.
        samples: ``[N]``, which of the 16 samples to aim at.

    Returns:
        ``[N]`` booleans.
    """
    first, second = _squares() * 2 - 1
    spread = np.stack([first, (first + second) / 2, second]) * light.size[:, None]
    aims = (light.position[:, None] + spread).astype(np.float32)
    towards = aims[:, samples] - points
    seen = np.ones(points.shape[1], dtype=bool)
    near = _between_sun(light, points) if light.distant else _between_lamp(light, points)
    for solid in solids:
        if not solid.casts:
            continue
        tried = np.flatnonzero(near(solid) & seen)
        if tried.size:
            enter, leave = solid.span(points[:, tried], towards[:, tried])
            seen[tried[(enter < leave) & (leave > 0) & (enter < 1)]] = False
    return seen


def _between_lamp(light: Light, points: Array) -> object:
    position = light.position.astype(np.float32)
    away = points - position[:, None]
    distance = np.sqrt(dot(away, away))
    away /= np.maximum(distance, 1e-6)
    spread = float(np.linalg.norm(light.size))

    def near(solid: Solid) -> Array:
        to = solid.centre - light.position
        length = float(np.linalg.norm(to))
        radius = solid.shape.radius + spread
        if radius >= length:
            return np.ones(points.shape[1], dtype=bool)
        axis = (to / length).astype(np.float32)
        within = (axis @ away) > np.float32(np.sqrt(1 - (radius / length) ** 2))
        return np.asarray(within & (distance > length - radius))

    return near


def _between_sun(light: Light, points: Array) -> object:
    to = light.position / np.linalg.norm(light.position)
    across = np.cross(to, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(to, across), to])
    flat = frame.astype(np.float32) @ points
    blur = float(np.linalg.norm(light.size) / np.linalg.norm(light.position))

    def near(solid: Solid) -> Array:
        x, y, z = frame @ solid.centre
        # A shadow is as blurred as its caster is far away; sixty metres are enough for a street.
        radius = solid.shape.radius + 60 * blur
        distance = np.square(flat[0] - np.float32(x)) + np.square(flat[1] - np.float32(y))
        return np.asarray((distance < np.float32(radius**2)) & (flat[2] < np.float32(z + radius)))

    return near


def ambient(solids: Sequence[Solid], points: Array, normals: Array, samples: Array, reach: float) -> Array:
    """Tries one direction a pixel, of 16 over the half sphere (denser around the normal), for ``reach`` metres.

    Returns:
        ``[N]`` booleans: nothing is in the way.
    """
    u, v = _squares()
    angle, radius = 2 * np.pi * u, np.sqrt(v)
    dome = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - v)]).astype(np.float32)[:, samples]
    # Any two directions at right angles to the normal; the formula has no case where it degenerates.
    sign = np.where(normals[2] >= 0, np.float32(1), np.float32(-1))
    a = -1 / (sign + normals[2])
    b = normals[0] * normals[1] * a
    first = np.stack([1 + sign * np.square(normals[0]) * a, sign * b, -sign * normals[0]])
    second = np.stack([b, sign + np.square(normals[1]) * a, -normals[1]])
    towards = (first * dome[0] + second * dome[1] + normals * dome[2]) * np.float32(reach)
    open_ = np.ones(points.shape[1], dtype=bool)
    low, high = points.min(1) - reach, points.max(1) + reach
    square = dot(points, points)
    for solid in solids:
        corners = solid.corners
        smallest, largest = corners.min(1), corners.max(1)
        if (smallest > high).any() or (largest < low).any():
            continue
        centre = solid.centre.astype(np.float32)
        distance = square - 2 * (centre @ points) + np.float32(solid.centre @ solid.centre)
        tried = np.flatnonzero((distance < np.float32((solid.shape.radius + reach) ** 2)) & open_)
        if solid.shape.radius > 2 * reach and tried.size:
            # A sphere says little about a wall; its box in the world does.
            inside = np.ones(tried.size, dtype=bool)
            for axis in range(3):
                part = points[axis, tried]
                inside &= (part > smallest[axis] - reach) & (part < largest[axis] + reach)
            tried = tried[inside]
        if tried.size:
            enter, leave = solid.span(points[:, tried], towards[:, tried])
            open_[tried[(enter < leave) & (leave > 0) & (enter < 1)]] = False
    return open_


def block_mean(values: Array, surface: Array) -> Array:
    """The mean over the 4×4 block around each pixel, among pixels of the same surface.

    Args:
        values: ``[H, W]``.
        surface: ``[H, W]`` integers, which surface a pixel sees.

    Returns:
        ``[H, W]`` float32.
    """
    height, width = surface.shape
    total = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.float32)
    values = values.astype(np.float32)
    for down in range(-1, BLOCK - 1):
        for right in range(-1, BLOCK - 1):
            to = (slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right)))
            of = (slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right)))
            same = surface[to] == surface[of]
            total[to] += values[of] * same
            count[to] += same
    return total / count
