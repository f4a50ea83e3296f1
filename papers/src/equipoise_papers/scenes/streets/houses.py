"""Houses in a row along the road."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.classes import Street
from equipoise_papers.scenes.material import Material
from equipoise_papers.scenes.parts import block, wedge
from equipoise_papers.scenes.solid import Solid, placed
from equipoise_papers.scenes.textures import facade, grain, hue, planks

__all__ = ["house", "wall"]

_LABEL = Street.CONSTRUCTION


def house(generator: np.random.Generator, length: float, storeys: int, depth: float = 11.0) -> list[Solid]:
    """A house whose front lies in the plane x = 0 from z = 0 to ``length``; it reaches to x = −depth."""
    storey = generator.uniform(2.9, 3.5)
    height = storeys * storey + 0.5
    colour = hue(generator, (0.02, 0.16), (0.05, 0.5), (0.45, 0.9))
    glass = hue(generator, (0.55, 0.65), (0.1, 0.4), (0.15, 0.4))
    bay = length / max(2, round(length / generator.uniform(2.2, 3.2)))
    # The front's windows are counted from its middle, so an odd number has to be shifted by half a bay; the ground is −h/2.
    front = Material(facade(generator, colour, glass, storey=storey, bay=bay, base=-height / 2), gloss=0.05)
    trim = Material(grain(generator, np.minimum(colour * 1.3 + 0.05, 0.9), size=0.4, depth=0.05))
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
