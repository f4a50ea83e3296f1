"""Things in a room before they have a place: small ones, lamps, and what lies on tables and cupboards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from equipoise_papers.scenes.classes import VOID, Room
from equipoise_papers.scenes.rendering import Light
from equipoise_papers.scenes.rooms.materials import ceramic, cloth, metal, painted
from equipoise_papers.scenes.solid import Material, Solid, ball, block, limb, rod
from equipoise_papers.scenes.textures import hue, leaves, plain, spines

__all__ = [
    "Thing",
    "book_row",
    "book_stack",
    "bulb",
    "clutter",
    "cushion",
    "floor_lamp",
    "laid",
    "lampshade",
    "plant",
    "trinket",
]


@dataclass
class Thing:
    """Solids in a frame of their own: x along the wall behind it, y upwards, z into the room; the origin lies on the floor
    in the middle of its back.

    Args:
        solids: what it is made of.
        width: of the floor that it needs, along x, metres.
        depth: and along z.
        lights: lamps that belong to it.
        room_in_front: metres that should stay free before it.
    """

    solids: list[Solid]
    width: float
    depth: float
    lights: list[Light] = field(default_factory=list)
    room_in_front: float = 0.3

    def add(self, other: list[Solid], at: tuple[float, float, float]) -> None:
        """Puts other solids on it, shifted."""
        from dataclasses import replace

        self.solids += [replace(solid, center=solid.center + np.asarray(at)) for solid in other]


def book_row(generator: np.random.Generator, width: float, height: float, depth: float) -> list[Solid]:
    """Books side by side on a board of that width; their backs at z = depth, their feet at y = 0."""
    solids = []
    x = -width / 2
    while width / 2 - x > 0.06:
        group = min(float(generator.uniform(0.1, 0.3)), width / 2 - x)
        tall = height * generator.uniform(0.6, 0.92)
        back = depth * generator.uniform(0.75, 0.95)
        material = Material(spines(generator, group), gloss=0.03)
        solids.append(block((x, x + group), (0, tall), (0.02, back), Room.BOOKS, material))
        x += group + (generator.uniform(0.05, 0.2) if generator.random() < 0.2 else 0.002)
        if generator.random() < 0.1:
            break
    return solids


def book_stack(generator: np.random.Generator, count: int) -> list[Solid]:
    """Books lying on each other."""
    solids, y = [], 0.0
    for _ in range(count):
        wide, deep, thick = generator.uniform(0.08, 0.12), generator.uniform(0.1, 0.15), generator.uniform(0.015, 0.045)
        yaw = generator.uniform(-0.5, 0.5)
        color = painted(generator, hue(generator, saturations=(0.2, 0.8), values=(0.3, 0.9)))
        solids.append(block((-wide, wide), (y, y + thick), (-deep, deep), Room.BOOKS, color, yaw=yaw))
        y += thick
    return solids


def trinket(generator: np.random.Generator) -> list[Solid]:
    """A vase, a bowl, a box, a bottle or a ball."""
    material = ceramic(generator)
    kind = generator.integers(5)
    size = generator.uniform(0.8, 1.3)
    if kind == 0:
        return [
            rod(0, 0, (0, 0.14 * size), 0.04 * size, Room.OBJECTS, material, top=0.075 * size),
            rod(0, 0, (0.14 * size, 0.22 * size), 0.075 * size, Room.OBJECTS, material, top=0.035 * size),
        ]
    if kind == 1:
        return [rod(0, 0, (0, 0.08 * size), 0.06 * size, Room.OBJECTS, material, top=0.13 * size)]
    if kind == 2:
        half, tall = generator.uniform(0.05, 0.12, 2) * size
        yaw = generator.uniform(-0.6, 0.6)
        return [block((-half, half), (0, 2 * tall), (-half * 0.8, half * 0.8), Room.OBJECTS, painted(generator), yaw=yaw)]
    if kind == 3:
        return [
            rod(0, 0, (0, 0.18 * size), 0.04 * size, Room.OBJECTS, material),
            rod(0, 0, (0.18 * size, 0.27 * size), 0.04 * size, Room.OBJECTS, material, top=0.015 * size),
        ]
    return [ball((0, 0.09 * size, 0), 0.09 * size, Room.OBJECTS, material)]


def clutter(generator: np.random.Generator) -> list[Solid]:
    """A box, a basket or a ball on the floor; some of it has no class, as in hand-labelled data."""
    label = VOID if generator.random() < 0.35 else Room.OBJECTS
    kind = generator.integers(3)
    if kind == 0:
        x, y, z = generator.uniform(0.12, 0.25, 3)
        return [block((-x, x), (0, 2 * y), (-z, z), label, painted(generator), yaw=generator.uniform(-1, 1))]
    if kind == 1:
        return [rod(0, 0, (0, 0.35), 0.13, label, cloth(generator), top=0.18)]
    radius = generator.uniform(0.11, 0.25)
    return [ball((0, radius, 0), radius, label, cloth(generator))]


def cushion(generator: np.random.Generator, width: float, label: int = Room.OBJECTS) -> list[Solid]:
    """A soft flat ellipsoid that leans a little."""
    return [ball((0, width * 0.42, 0), (width / 2, width * 0.42, 0.09), label, cloth(generator, patterned=0.5))]


def lampshade(generator: np.random.Generator, foot: float) -> tuple[list[Solid], float]:
    """A lamp whose shade begins ``foot`` metres above; and the height of its bulb."""
    color = hue(generator, (0.08, 0.14), (0.1, 0.35), (0.9, 1.0))
    glowing = Material(plain(color), glow=float(generator.uniform(1.5, 3.0)))
    size = 0.12 if foot < 0.8 else 0.2
    shade = rod(0, 0, (foot, foot + 1.5 * size), size, Room.OBJECTS, glowing, top=size * 0.65)
    return [
        rod(0, 0, (0, 0.03), size * 0.8, Room.OBJECTS, metal(0.1)),
        rod(0, 0, (0.03, foot), 0.015, Room.OBJECTS, metal(0.2)),
        replace(shade, casts=False),  # the light comes through
    ], foot + 0.75 * size


def plant(generator: np.random.Generator) -> list[Solid]:
    """Leaves on stems in a pot."""
    green = Material(leaves(generator, hue(generator, (0.25, 0.38), (0.4, 0.8), (0.35, 0.65)), size=0.08))
    solids = [rod(0, 0, (0, 0.3), 0.12, Room.OBJECTS, ceramic(generator), top=0.17)]
    tall = generator.uniform(0.5, 1.1)
    for _ in range(int(generator.integers(5, 9))):
        x, z = generator.uniform(-0.28, 0.28, 2)
        y = 0.3 + tall * generator.uniform(0.35, 1.0)
        solids.append(limb((0, 0.28, 0), (x, y, z), 0.012, Room.OBJECTS, green))
        radii = generator.uniform(0.08, 0.17), generator.uniform(0.06, 0.14), generator.uniform(0.08, 0.17)
        solids.append(ball((x, y, z), radii, Room.OBJECTS, green))
    return solids


def bulb(generator: np.random.Generator, at: tuple[float, float, float], power: float) -> Light:
    """The warm light of a lamp's bulb; ``power`` is about the irradiance at one metre."""
    warm = hue(generator, (0.08, 0.12), (0.25, 0.5), (1.0, 1.0))
    return Light(np.asarray(at, float), warm * power * generator.uniform(0.6, 1.3), np.array([0.08, 0.08, 0.08]))


def floor_lamp(generator: np.random.Generator) -> Thing:
    """As high as a person."""
    foot = generator.uniform(1.25, 1.5)
    lamp, up = lampshade(generator, foot)
    thing = Thing([], 0.45, 0.45, room_in_front=0.0)
    thing.add(lamp, (0.0, 0.0, 0.22))
    thing.lights.append(bulb(generator, (0.0, up, 0.22), 1.5))
    return thing


def laid(generator: np.random.Generator, thing: Thing, spots: list[tuple[float, float, float]]) -> None:
    """Puts books or small things on some of the spots."""
    for x, y, z in spots:
        roll = generator.random()
        if roll < 0.35:
            thing.add(book_stack(generator, int(generator.integers(1, 4))), (x, y, z))
        elif roll < 0.8:
            thing.add(trinket(generator), (x, y, z))
