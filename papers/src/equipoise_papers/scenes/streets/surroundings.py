"""The ground of a street, and the houses along it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from equipoise_papers.scenes.classes import Street
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Material, Solid, Texture, block, placed, wedge
from equipoise_papers.scenes.textures import clouds, facade, grain, hue, leaves, mixed, noise, plain, planks, tiles

__all__ = ["FAR", "KERB", "ground", "house", "wall"]

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


_LABEL = Street.CONSTRUCTION


def house(generator: np.random.Generator, length: float, storeys: int, depth: float = 11.0) -> list[Solid]:
    """A house whose front lies in the plane x = 0 from z = 0 to ``length``; it reaches to x = −depth."""
    storey = generator.uniform(2.9, 3.5)
    height = storeys * storey + 0.5
    color = hue(generator, (0.02, 0.16), (0.05, 0.5), (0.45, 0.9))
    glass = hue(generator, (0.55, 0.65), (0.1, 0.4), (0.15, 0.4))
    bay = length / max(2, round(length / generator.uniform(2.2, 3.2)))
    # The front's windows are counted from its middle, so an odd number has to be shifted by half a bay; the ground is −h/2.
    front = Material(facade(generator, color, glass, storey=storey, bay=bay, base=-height / 2), gloss=0.05)
    trim = Material(grain(generator, np.minimum(color * 1.3 + 0.05, 0.9), size=0.4, depth=0.05))
    solids = [
        block((-depth, 0), (0, height), (0, length), _LABEL, front),
        block((-0.05, 0.18), (height - 0.3, height), (0, length), _LABEL, trim),
    ]
    tile = Material(planks(generator, hue(generator, (0.0, 0.08), (0.3, 0.7), (0.2, 0.5)), width=0.3, length=0.4, along=0))
    if storeys <= 5 and generator.random() < 0.6:
        rise = generator.uniform(2.0, 4.0)
        roof = wedge([(-0.4, 0), (depth / 2, rise), (depth + 0.4, 0)], (-length / 2, length / 2), _LABEL, tile)
        solids += placed([roof], -np.pi / 2, np.array([0.0, height, length / 2]))
        if generator.random() < 0.5:
            z = length * generator.uniform(0.2, 0.8)
            solids.append(block((-depth * 0.4, -depth * 0.4 + 0.7), (height, height + rise + 0.8), (z, z + 0.9), _LABEL, trim))
    if storeys >= 3 and generator.random() < 0.4:  # balconies
        for number in range(1, storeys):
            z = length * 0.5
            y = number * storey + 0.3
            solids.append(block((0, 1.0), (y - 0.12, y), (z - 1.6, z + 1.6), _LABEL, trim))
            solids.append(block((0.94, 1.0), (y, y + 0.95), (z - 1.6, z + 1.6), _LABEL, trim))
    if generator.random() < 0.35:  # an awning over the shop
        cover = Material(grain(generator, hue(generator, saturations=(0.5, 0.9), values=(0.3, 0.7)), size=0.5, depth=0.05))
        awning = wedge([(0, 2.9), (0, 2.75), (1.3, 2.4), (1.3, 2.5)], (-length * 0.3, length * 0.3), _LABEL, cover)
        solids += placed([awning], np.pi / 2, np.array([0.0, 0.0, length / 2]))
    return solids


def wall(generator: np.random.Generator, length: float) -> list[Solid]:
    """A garden wall in the plane x = 0 from z = 0."""
    stone = Material(grain(generator, hue(generator, (0.03, 0.12), (0.05, 0.4), (0.4, 0.7)), size=0.25, depth=0.15))
    return [block((-0.25, 0), (0, generator.uniform(0.9, 1.9)), (0, length), _LABEL, stone)]
