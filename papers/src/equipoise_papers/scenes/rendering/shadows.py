"""Which light reaches which point.

One shadow ray a pixel and light. Pixels of a 4×4 block aim at 16 different points of the light, and the mean over a block
around each pixel, among pixels of the same face only, is the share of the light that is seen: soft shadows for the price of
hard ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from equipoise_papers.scenes.rendering.lights import Light
from equipoise_papers.scenes.rendering.visible import Tiles
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Solid

__all__ = ["BLOCK", "ambient", "block_mean", "lit", "pattern"]

BLOCK = 4
_ORDER = np.array([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5])  # neighbours take samples that are far apart

Near = Callable[[int], Array]
"""From the number of a solid to the blocks of pixels that it may matter to, ``[T]`` booleans."""


def pattern(height: int, width: int) -> Array:
    """``[H·W]``: which of the 16 samples each pixel takes."""
    rows, columns = np.arange(height) % BLOCK, np.arange(width) % BLOCK
    return np.asarray(_ORDER[rows[:, None] * BLOCK + columns[None, :]]).ravel()


def _squares() -> Array:
    """``[2, 16]``: points spread evenly over the unit square."""
    number = np.arange(BLOCK * BLOCK)
    return np.stack([(number % BLOCK + 0.5) / BLOCK, ((number // BLOCK + 0.5) / BLOCK + 0.13 * (number % BLOCK)) % 1])


def lit(solids: Sequence[Solid], light: Light, points: Array, asked: Array, samples: Array, tiles: Tiles) -> Array:
    """Tries one point of a light a pixel.

    Args:
        solids: what may be in between.
        light: the light.
        points: ``[3, N]`` float32, a little off their surfaces.
        asked: ``[N]`` booleans, which points to ask for.
        samples: ``[N]``, which of the 16 samples to aim at.
        tiles: blocks of these points.

    Returns:
        ``[N]`` booleans; false where it was not asked for.
    """
    first, second = _squares() * 2 - 1
    spread = np.stack([first, (first + second) / 2, second]) * light.size[:, None]
    aims = (light.position[:, None] + spread).astype(np.float32)
    near = (_between_sun if light.distant else _between_lamp)(solids, light, tiles)
    return _free(solids, near, points, aims[:, samples] - points, asked, tiles)


def _free(solids: Sequence[Solid], near: Near, points: Array, towards: Array, asked: Array, tiles: Tiles) -> Array:
    """Whether nothing lies between ``points`` and ``points + towards``."""
    # Block by block in memory, so that picking blocks copies whole stretches of it.
    start, along, free = points[:, tiles.pixels], towards[:, tiles.pixels], asked[tiles.pixels]
    for number, solid in enumerate(solids):
        blocks = np.flatnonzero(near(number))
        blocks = blocks[free[blocks].any(1)]
        if blocks.size:
            shape = (blocks.size, free.shape[1])
            enter, leave = solid.span(start[:, blocks].reshape(3, -1), along[:, blocks].reshape(3, -1))
            free[blocks] &= ((enter >= leave) | (leave <= 0) | (enter >= 1)).reshape(shape)
    whole = np.zeros_like(asked)
    whole[tiles.pixels] = free
    return whole


def _between_lamp(solids: Sequence[Solid], light: Light, tiles: Tiles) -> Near:
    away = tiles.center - light.position[:, None]
    distance = np.sqrt(np.square(away).sum(0))
    away = away / np.maximum(distance, 1e-6)
    blur = tiles.radius + float(np.linalg.norm(light.size))
    # Seen from the lamp, a block is behind the sphere around a solid, both made larger by what a block is wide.
    spheres = _spheres(solids)
    to = spheres.center - light.position
    length = np.maximum(np.sqrt(np.square(to).sum(1)), 1e-6)[:, None]
    radius = spheres.radius[:, None] + blur
    behind = (to @ away) / length > np.sqrt(np.maximum(1 - np.square(radius / length), 0))
    perhaps = spheres.casts[:, None] & ((radius >= length) | (behind & (distance > length - radius)))
    return lambda number: _in_the_way(solids[number], light, tiles, blur, perhaps[number])


def _between_sun(solids: Sequence[Solid], light: Light, tiles: Tiles) -> Near:
    to = light.position / np.linalg.norm(light.position)
    across = np.cross(to, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(to, across), to])
    # A shadow is as blurred as its caster is far away; sixty metres are enough for a street.
    blur = tiles.radius + 60 * float(np.linalg.norm(light.size) / np.linalg.norm(light.position))
    spheres = _spheres(solids)
    # Seen from the sun, a block and the sphere around a solid overlap, and the block is not in front.
    (x, y, z), flat = (frame @ spheres.center.T)[:, :, None], frame @ tiles.center
    radius = spheres.radius[:, None] + blur
    overlap = np.square(flat[0] - x) + np.square(flat[1] - y) < np.square(radius)
    perhaps = spheres.casts[:, None] & (radius > 0) & overlap & (flat[2] < z + radius)
    return lambda number: _in_the_way(solids[number], light, tiles, blur, perhaps[number])


class _Spheres(NamedTuple):
    """Spheres around S solids: ``center`` [S, 3], ``radius`` [S], and which of them cast shadows, ``casts`` [S]."""

    center: Array
    radius: Array
    casts: Array


def _spheres(solids: Sequence[Solid]) -> _Spheres:
    return _Spheres(
        np.stack([solid.center for solid in solids]),
        np.array([solid.shape.radius for solid in solids]),
        np.array([solid.casts for solid in solids]),
    )


def _in_the_way(solid: Solid, light: Light, tiles: Tiles, blur: Array, perhaps: Array) -> Array:
    """Of the blocks ``[T]`` that a sphere around the solid may matter to, those that the box around it may matter to.

    The line from a block's middle to the light is cut with the box, made larger by ``blur``: what lies between any of the
    block's points and any of the light's is within that distance of the line.
    """
    blocks = np.flatnonzero(perhaps)
    if not blocks.size:
        return perhaps
    middle = tiles.center[:, blocks]
    start, along = solid.local(middle), solid.axes @ (light.position[:, None] - middle)
    slope = 1 / np.where(along == 0, 1e-12, along)
    center, reach = -start * slope, (solid.shape.extent[:, None] + blur[blocks]) * np.abs(slope)
    enter, leave = (center - reach).max(0), (center + reach).min(0)
    perhaps[blocks] = (enter < leave) & (leave > 0) & (enter < 1)
    return perhaps


def ambient(
    solids: Sequence[Solid], points: Array, normals: Array, asked: Array, samples: Array, tiles: Tiles, reach: float
) -> Array:
    """Tries one direction a pixel, of 16 over the half sphere (denser around the normal), for ``reach`` metres.

    Returns:
        ``[N]`` booleans: asked for, and nothing is in the way.
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
    slack = tiles.radius + reach
    # The boxes around solids in the world; spheres would say little about walls.
    corners = np.stack([solid.corners for solid in solids])
    low, high = corners.min(2), corners.max(2)
    square = np.zeros((len(solids), len(slack)))
    for axis in range(3):
        middle = tiles.center[axis]
        square += np.square(np.maximum(np.maximum(low[:, axis, None] - middle, middle - high[:, axis, None]), 0))
    perhaps = (slack > 0) & (square < np.square(slack))
    return _free(solids, perhaps.__getitem__, points, towards, asked, tiles)


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
