"""What stands beside a road: trees, hedges, lamp posts, signs, traffic lights, bollards, bins."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.classes import VOID, Street
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Material, Solid, Texture, ball, block, limb, rod
from equipoise_papers.scenes.textures import grain, hue, leaves, mixed, plain

__all__ = ["bin_", "bollard", "bush", "fir", "hedge", "lamp_post", "sign", "traffic_light", "tree"]


def _green(generator: np.random.Generator, size: float) -> Material:
    return Material(leaves(generator, hue(generator, (0.2, 0.34), (0.45, 0.75), (0.3, 0.55)), size=size))


def tree(generator: np.random.Generator) -> list[Solid]:
    """A trunk and a crown of overlapping clumps."""
    tall, wide = generator.uniform(4.5, 9.0), generator.uniform(1.2, 2.4)
    bark = Material(grain(generator, np.array([0.12, 0.08, 0.05]), size=0.08, depth=0.4))
    green = _green(generator, 0.35)
    foot = tall * generator.uniform(0.3, 0.42)
    solids = [rod(0, 0, (0, tall * 0.7), 0.16, Street.NATURE, bark, top=0.08)]
    for _ in range(int(generator.integers(14, 22))):
        angle, out, up = generator.uniform(0, 2 * np.pi), np.sqrt(generator.random()), generator.uniform(0.15, 0.95)
        # The crown is widest somewhat below its middle.
        reach = wide * out * np.sqrt(np.sin(np.pi * up**0.8))
        center = (reach * np.cos(angle), foot + (tall - foot) * up, reach * np.sin(angle))
        radius = wide * generator.uniform(0.28, 0.5)
        solids.append(ball(center, (radius, radius * 0.8, radius), Street.NATURE, green))
    return solids


def fir(generator: np.random.Generator) -> list[Solid]:
    """Cones on top of each other."""
    tall = generator.uniform(4.0, 8.0)
    green = Material(leaves(generator, hue(generator, (0.3, 0.4), (0.4, 0.7), (0.2, 0.35)), size=0.3))
    solids = [rod(0, 0, (0, 1.0), 0.14, Street.NATURE, Material(plain(np.array([0.1, 0.06, 0.04]))))]
    for share in (0.0, 0.28, 0.52, 0.74):
        low = 0.6 + share * (tall - 0.6)
        high = min(low + 0.5 * (tall - 0.6), tall)
        solids.append(rod(0, 0, (low, high), (1 - share) * tall * 0.24, Street.NATURE, green, top=0.02))
    return solids


def bush(generator: np.random.Generator) -> list[Solid]:
    """Round and low."""
    green = _green(generator, 0.2)
    return [
        ball(
            (generator.uniform(-0.5, 0.5), 0.4, generator.uniform(-0.5, 0.5)), generator.uniform(0.4, 0.8), Street.NATURE, green
        )
        for _ in range(3)
    ]


def hedge(generator: np.random.Generator, length: float) -> list[Solid]:
    """Clipped, along z."""
    return [
        block((-0.35, 0.35), (0, generator.uniform(0.9, 1.6)), (-length / 2, length / 2), Street.NATURE, _green(generator, 0.2))
    ]


def lamp_post(generator: np.random.Generator, arm: float) -> list[Solid]:
    """With an arm of that length along x."""
    grey = Material(plain(np.full(3, generator.uniform(0.08, 0.35))), gloss=0.1)
    tall = generator.uniform(5.5, 8.0)
    return [
        rod(0, 0, (0, 1.2), 0.1, Street.OBJECT, grey),
        rod(0, 0, (0, tall), 0.07, Street.OBJECT, grey, top=0.045),
        limb((0, tall - 0.03, 0), (arm, tall + 0.25, 0), 0.04, Street.OBJECT, grey),
        block(tuple(sorted((arm, arm * 1.45))), (tall + 0.18, tall + 0.32), (-0.14, 0.14), Street.OBJECT, grey),  # type: ignore[arg-type]
    ]


def sign(generator: np.random.Generator) -> list[Solid]:
    """A round, square or triangular plate on a post; it faces −z."""
    grey = Material(plain(np.full(3, 0.3)))
    tall = generator.uniform(2.2, 2.8)
    rim = np.array([0.55, 0.01, 0.01]) if generator.random() < 0.6 else np.array([0.02, 0.1, 0.5])
    inner = np.full(3, 0.8) if generator.random() < 0.6 else rim
    back = np.full(3, 0.25)
    kind = generator.integers(2)

    def painted(points: Array, normals: Array, pixel: Array) -> Array:
        across, up = (points[0], points[2]) if kind == 0 else (points[0], points[1])
        distance = np.hypot(across, up) if kind == 0 else np.maximum(np.abs(across), np.abs(up))
        plate = mixed(rim, inner, distance < 0.25)
        front = normals[1] < -0.7 if kind == 0 else normals[2] < -0.7
        return mixed(back, plate, front)

    plate = Material(painted)
    post = rod(0, 0, (0, tall), 0.035, Street.OBJECT, grey)
    if kind == 0:
        return [post, limb((0, tall, -0.04), (0, tall, -0.06), 0.34, Street.OBJECT, Material(_turned(painted)))]
    return [post, block((-0.33, 0.33), (tall - 0.33, tall + 0.33), (-0.06, -0.04), Street.OBJECT, plate)]


def _turned(painted: Texture) -> Texture:
    """A plate that was laid on its side so that its axis points along −z: its front is its upper end."""

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        return painted(points, -normals, pixel)

    return texture


def traffic_light(generator: np.random.Generator) -> list[Solid]:
    """One of its three lamps is on; it faces −z."""
    dark = Material(plain(np.full(3, 0.02)))
    tall = generator.uniform(2.4, 3.2)
    on = int(generator.integers(3))
    solids = [
        rod(0, 0, (0, tall), 0.06, Street.OBJECT, Material(plain(np.full(3, 0.15)))),
        block((-0.16, 0.16), (tall - 0.1, tall + 0.8), (-0.2, 0.1), Street.OBJECT, dark),
    ]
    for number, color in enumerate(((0.02, 0.8, 0.2), (0.9, 0.5, 0.02), (0.9, 0.03, 0.03))):
        lamp = Material(plain(np.array(color)), glow=3.0 if number == on else 0.0)
        solids.append(ball((0, tall + 0.06 + 0.29 * number, -0.2), (0.1, 0.1, 0.05), Street.OBJECT, lamp))
    return solids


def bollard(generator: np.random.Generator) -> list[Solid]:
    """Knee-high."""
    grey = Material(plain(np.full(3, generator.uniform(0.05, 0.4))))
    return [rod(0, 0, (0, 0.9), 0.07, Street.OBJECT, grey), ball((0, 0.9, 0), 0.075, Street.OBJECT, grey)]


def bin_(generator: np.random.Generator) -> list[Solid]:
    """A wheeled bin or sacks: without a class, as in hand-labelled data."""
    color = Material(plain(hue(generator, saturations=(0.3, 0.8), values=(0.15, 0.5))))
    if generator.random() < 0.6:
        return [
            block((-0.3, 0.3), (0.05, 1.0), (-0.35, 0.35), VOID, color),
            block((-0.32, 0.32), (1.0, 1.07), (-0.38, 0.38), VOID, color),
        ]
    return [ball((x, 0.3, z), (0.35, 0.32, 0.3), VOID, color) for x, z in ((-0.3, 0.0), (0.3, 0.1))]
