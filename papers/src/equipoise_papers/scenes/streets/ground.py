"""Road, pavements, and what lies behind them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from equipoise_papers.scenes.arrays import Array
from equipoise_papers.scenes.classes import Street
from equipoise_papers.scenes.material import Material, Texture
from equipoise_papers.scenes.parts import block
from equipoise_papers.scenes.solid import Solid
from equipoise_papers.scenes.textures import clouds, grain, leaves, mixed, noise, plain, tiles

__all__ = ["FAR", "KERB", "ground"]

FAR = 220.0
KERB = 0.13  # metres that a pavement is above the road


def _asphalt(generator: np.random.Generator, half: float, crossing: float | None) -> Texture:
    """With a broken line in the middle, lines at the sides, perhaps a zebra crossing; worn and patched."""
    tone = np.full(3, generator.uniform(0.07, 0.16)) * np.array([1.0, 1.0, 1.04])
    offset = generator.uniform(0, 100, 2)
    sides = generator.random() < 0.5

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        x, z = points[0], points[2]
        worn = 0.85 + 0.4 * (clouds(x / 1.5 + offset[0], z / 6 + offset[1]) - 0.5)
        worn = worn + 0.25 * (noise(x / 0.03, z / 0.03) - 0.5) * np.exp(-np.square(pixel / 0.04))
        line = (np.abs(x) < 0.07) & (z % 6 < 3)
        if sides:
            line |= np.abs(np.abs(x) - half + 0.35) < 0.06
        if crossing is not None:
            band = np.abs(z - crossing) < 1.6
            line = (line & ~band) | (band & (x % 1.0 < 0.5) & (np.abs(x) < half - 0.3))
        paint = line * (0.75 + 0.2 * noise(x / 0.3, z / 0.3))
        return mixed(mixed(tone * 0, tone, worn), np.full(3, 0.6), paint)

    return texture


def ground(generator: np.random.Generator, half: float, pavement: float, crossing: float | None) -> list[Solid]:
    """A road from −half to half, pavements beside it, lawn or paving behind."""
    slabs = Material(
        tiles(generator, np.full(3, generator.uniform(0.25, 0.4)), np.full(3, 0.15), size=generator.uniform(0.4, 0.8))
    )
    kerb = Material(plain(np.full(3, 0.4)))
    lawn = Material(leaves(generator, np.array([0.09, 0.16, 0.03]) * generator.uniform(0.7, 1.3), size=0.3))
    yard = Material(grain(generator, np.full(3, 0.22), size=0.3, depth=0.1))
    road = block((-half, half), (-1, 0), (-15, FAR), Street.FLAT, Material(_asphalt(generator, half, crossing)))
    solids = [replace(road, anchor=np.zeros(3))]
    for side in (-1, 1):
        inner, outer = side * half, side * (half + pavement)
        x = sorted((inner + side * 0.14, outer))
        edge = sorted((inner, inner + side * 0.14))
        beyond = sorted((outer, side * 80.0))
        green = generator.random() < 0.5
        solids.append(block((edge[0], edge[1]), (-1, KERB), (-15, FAR), Street.FLAT, kerb))
        solids.append(replace(block((x[0], x[1]), (-1, KERB), (-15, FAR), Street.FLAT, slabs), anchor=np.zeros(3)))
        solids.append(
            block((beyond[0], beyond[1]), (-1, KERB), (-15, FAR), *((Street.NATURE, lawn) if green else (Street.FLAT, yard)))
        )
    return [replace(solid, casts=False) for solid in solids]
