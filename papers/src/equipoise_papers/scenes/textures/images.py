"""Pictures on flat things: paintings, screens, what is outside of a window, the front of a house.

All of them lie in the (x, y) plane of the solid that carries them, with the origin in its middle.
"""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Texture
from equipoise_papers.scenes.textures.colors import hue, mixed
from equipoise_papers.scenes.textures.patterns import clouds, noise, on_face

__all__ = ["facade", "painting", "screen", "view"]


def painting(generator: np.random.Generator, width: float, height: float) -> Texture:
    """A landscape, blots, or colored fields, with a pale margin."""
    kind = generator.integers(3)
    colors = [hue(generator, saturations=(0.2, 0.7), values=(0.3, 0.95)) for _ in range(4)]
    offset = generator.uniform(0, 100, 2)
    margin = generator.choice([0.0, 0.12])
    cuts = generator.uniform(-0.6, 0.6, 2)

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        u, v = points[0] / (width / 2), points[1] / (height / 2)
        if kind == 0:
            sky = mixed(colors[0], np.array([0.8, 0.85, 0.9]), v / 2 + 0.5)
            hills = cuts[0] + 0.5 * clouds(u * 2 + offset[0], np.zeros_like(u)) - 0.25
            near = cuts[0] - 0.5 + 0.6 * clouds(u * 3 + offset[1], np.ones_like(u)) - 0.3
            out = np.where(v < near, mixed(colors[2], colors[3], clouds(u * 6, v * 6)), mixed(colors[1], sky, 0.3))
            out = np.where((v > hills) & (v > near), sky, out)
        elif kind == 1:
            blots = clouds(u * 2 + offset[0], v * 2 + offset[1])
            out = mixed(mixed(colors[0], colors[1], np.clip(blots * 3 - 1, 0, 1)), colors[2], noise(u * 3, v * 3) > 0.7)
        else:
            out = np.where(u < cuts[0], np.where(v < cuts[1], 0, 1), np.where(v < -cuts[1], 2, 3))
            out = np.stack(colors, axis=1)[:, out]
        inside = np.maximum(np.abs(u), np.abs(v)) < 1 - margin
        return mixed(np.array([0.8, 0.78, 0.72]), out, inside)

    return texture


def screen(generator: np.random.Generator, on: bool) -> Texture:
    """Of a television: dark, or showing something with a bluish light."""
    colors = [hue(generator, saturations=(0.2, 0.65), values=(0.3, 0.95)) for _ in range(3)]
    offset = generator.uniform(0, 100, 2)

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        front = normals[2] > 0.7
        if not on:
            return mixed(np.full(3, 0.012), np.full(3, 0.02), front)
        shown = clouds(points[0] * 4 + offset[0], points[1] * 4 + offset[1])
        scene = mixed(mixed(colors[0], colors[1], np.clip(shown * 3 - 1, 0, 1)), colors[2], points[1] < 0.15 * shown - 0.1)
        return mixed(np.full(3, 0.012), scene, front)

    return texture


def view(generator: np.random.Generator, height: float) -> Texture:
    """Outside of a window: sky over trees or houses; at night, darkness with lit windows far away."""
    night = generator.random() < 0.2
    sky = hue(generator, (0.52, 0.62), (0.1, 0.5), (0.9, 1.0))
    ground = hue(generator, (0.2, 0.4), (0.2, 0.6), (0.25, 0.55))
    offset = generator.uniform(0, 100)
    horizon = generator.uniform(-0.25, 0.1)

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        v = points[1] / height
        tops = horizon + 0.25 * clouds(points[0] * 3 + offset, np.zeros_like(v)) - 0.12
        bright = mixed(sky, np.array([1.0, 1.0, 1.0]), clouds(points[0] * 2 + offset, v * 3))
        below = mixed(ground, ground * 0.4, clouds(points[0] * 8 + offset, points[1] * 8))
        out = np.where(v > tops, bright, below)
        return out * np.float32(0.03) if night else out

    return texture


def facade(
    generator: np.random.Generator, wall: Array, glass: Array, *, storey: float = 3.2, bay: float = 2.4, base: float = 0.0
) -> Texture:
    """The front of a house: rows of windows with pale frames on a plastered or brick wall; ``base`` is the ground's y."""
    wide, tall = generator.uniform(0.35, 0.6), generator.uniform(0.42, 0.62)
    brick = generator.random() < 0.35
    frame = np.minimum(wall * 1.8 + 0.1, 1)
    offset = generator.uniform(0, 100, 2)
    shop = generator.random() < 0.4
    trim = hue(generator, saturations=(0.3, 0.8), values=(0.3, 0.7))

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        u, v = on_face(points, normals)
        v = v - base
        across, up = u / bay, v / storey
        i, j = np.floor(across), np.floor(up)
        x, y = np.abs(across - i - 0.5) * 2, np.abs(up - j - 0.55) * 2
        low = shop & (j < 1)
        breadth, height = np.where(low, 0.85, wide), np.where(low, 0.8, tall)
        stained = 0.85 + 0.3 * clouds(u / 2.5 + offset[0], v / 2.5 + offset[1])
        if brick:
            row = np.floor(v / 0.09)
            block = np.floor(u / 0.25 + 0.5 * (row % 2))
            stained = stained * (0.85 + 0.3 * noise(block * 3.3, row * 5.7) * np.exp(-np.square(pixel / 0.12)))
        out = mixed(mixed(wall * 0, wall, stained), trim, low & (up - j > 0.86))
        framed = (x < breadth + 0.09) & (y < height + 0.06)
        pane = (x < breadth) & (y < height) & ((np.abs(across - i - 0.5) > 0.02) | low)
        lit = noise(i * 7.7 + offset[0], j * 9.1 + offset[1])
        shown = mixed(glass * 0.5, glass * 1.5, np.clip(lit + 0.4 * (up - j - 0.5), 0, 1))
        upright = np.abs(normals[1]) < 0.5
        out = mixed(out, frame, framed & upright)
        out = np.where(pane & upright, shown, out)
        return np.where(upright, np.minimum(out, 1), mixed(wall * 0.4, wall * 0.5, lit))

    return texture
