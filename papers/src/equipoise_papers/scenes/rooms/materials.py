"""What things in a room are made of."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Material, Texture
from equipoise_papers.scenes.textures import checks, grain, hue, mixed, plain, planks, stripes, tiles, weave

__all__ = ["ceramic", "cloth", "floor", "metal", "painted", "wallpaper", "white", "wood"]

WOODS = (
    (0.30, 0.17, 0.08),
    (0.17, 0.085, 0.04),
    (0.48, 0.30, 0.15),
    (0.58, 0.43, 0.27),
    (0.09, 0.05, 0.03),
    (0.38, 0.20, 0.10),
)


def wood(generator: np.random.Generator, *, along: int = 0) -> Material:
    """Boards of one of several woods; sometimes painted white or grey."""
    if generator.random() < 0.22:
        return painted(generator, np.full(3, generator.choice([0.75, 0.6, 0.3])))
    tone = np.asarray(WOODS[generator.integers(len(WOODS))]) * generator.uniform(0.8, 1.2)
    return Material(planks(generator, tone, width=0.25, length=3.0, along=along, seams=0.15), gloss=0.06, sheen=20)


def painted(generator: np.random.Generator, color: Array | None = None) -> Material:
    """One smooth color."""
    return Material(plain(hue(generator) if color is None else color), gloss=0.05, sheen=25)


def white(value: float = 0.75) -> Material:
    """White paint."""
    return Material(plain(np.full(3, value)))


def metal(value: float = 0.25) -> Material:
    """Grey, with a sharp highlight."""
    return Material(plain(np.full(3, value)), gloss=0.35, sheen=60)


def ceramic(generator: np.random.Generator) -> Material:
    """Glazed, of any color."""
    return Material(plain(hue(generator, saturations=(0.1, 0.75), values=(0.3, 0.95))), gloss=0.3, sheen=50)


def cloth(generator: np.random.Generator, color: Array | None = None, *, patterned: float = 0.25) -> Material:
    """Woven, of one color; or, with probability ``patterned``, striped or chequered."""
    own = hue(generator, saturations=(0.08, 0.6), values=(0.25, 0.85)) if color is None else color
    if generator.random() >= patterned:
        return Material(weave(generator, own))
    other = hue(generator, saturations=(0.05, 0.6), values=(0.3, 0.95))
    size = generator.uniform(0.03, 0.12)
    make = stripes if generator.random() < 0.5 else checks
    return Material(make(own, other, size=size))


def floor(generator: np.random.Generator) -> Material:
    """Boards, tiles or carpet."""
    kind = generator.choice(["boards", "boards", "tiles", "carpet"])
    if kind == "boards":
        tone = np.asarray(WOODS[generator.integers(len(WOODS))]) * generator.uniform(0.9, 1.3)
        width = generator.uniform(0.08, 0.2)
        texture: Texture = planks(generator, tone, width=width, length=1.4, along=int(generator.choice([0, 2])))
        return Material(texture, gloss=0.08, sheen=25)
    if kind == "tiles":
        tone = hue(generator, (0.02, 0.15), (0.03, 0.4), (0.5, 0.9))
        return Material(tiles(generator, tone, tone * 0.45, size=generator.uniform(0.25, 0.5)), gloss=0.15, sheen=40)
    return Material(grain(generator, hue(generator, saturations=(0.05, 0.5), values=(0.35, 0.75)), size=0.02, depth=0.2))


def wallpaper(generator: np.random.Generator) -> Material:
    """Mostly pale plaster; sometimes a strong color, stripes or bricks."""
    pale = hue(generator, (0.0, 0.65), (0.02, 0.25), (0.75, 0.98))
    kind = generator.random()
    if kind < 0.6:
        return Material(grain(generator, pale, size=0.6, depth=0.03))
    if kind < 0.8:
        return Material(grain(generator, hue(generator, saturations=(0.15, 0.42), values=(0.5, 0.8)), size=0.5, depth=0.03))
    if kind < 0.93:
        width = generator.uniform(0.06, 0.2)
        other = pale * generator.uniform(0.6, 0.9)

        def striped(points: Array, normals: Array, pixel: Array) -> Array:
            # A wall's texture is anchored in the room; what runs along it is x on some walls and z on the others.
            odd = np.floor((points[0] + points[2]) / width) % 2
            return mixed(pale, other, 0.5 + (odd - 0.5) * np.exp(-np.square(pixel / width)))

        return Material(striped)
    brick = hue(generator, (0.01, 0.06), (0.4, 0.65), (0.4, 0.65))
    return Material(tiles(generator, brick, np.full(3, 0.45), size=0.16))
