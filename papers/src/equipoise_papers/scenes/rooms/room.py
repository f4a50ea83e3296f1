"""A room of one of four uses, furnished, lit, and seen by somebody who stands in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.rendering import Light, Surroundings
from equipoise_papers.scenes.rendering.lights import World
from equipoise_papers.scenes.rooms.furniture import (
    armchair,
    bed,
    bookcase,
    chair,
    coffee_table,
    cupboard,
    desk,
    dining,
    nightstand,
    sofa,
    tv_stand,
)
from equipoise_papers.scenes.rooms.materials import cloth, metal
from equipoise_papers.scenes.rooms.plan import Plan, Spot
from equipoise_papers.scenes.rooms.things import Thing, clutter, floor_lamp, plant
from equipoise_papers.scenes.rooms.walls import door, picture, shell, window
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Material, Solid, ball, block, placed, rod
from equipoise_papers.scenes.textures import hue, plain

__all__ = ["room"]

Maker = Callable[[np.random.Generator], Thing]

# What a room of each use has (always) and may have (each with probability 0.65), in the order in which it is placed.
_USES: dict[str, tuple[tuple[Maker, ...], tuple[Maker, ...]]] = {
    "bedroom": ((bed,), (cupboard, desk, bookcase, armchair, tv_stand, cupboard)),
    "living": ((sofa, tv_stand), (bookcase, armchair, dining, floor_lamp, cupboard, bookcase)),
    "study": ((desk, bookcase), (bookcase, sofa, cupboard, armchair, desk, floor_lamp)),
    "dining": ((dining, cupboard), (cupboard, bookcase, tv_stand, sofa, floor_lamp, cupboard)),
}


def room(generator: np.random.Generator) -> World:
    """Draws a room."""
    size = np.array([generator.uniform(3.2, 5.5), generator.uniform(2.4, 2.9), generator.uniform(3.6, 6.0)])
    solids = shell(generator, size)
    lights: list[Light] = []
    plan = Plan(size)
    always, perhaps = _USES[str(generator.choice(list(_USES)))]
    makers = [*always, *(maker for maker in perhaps if generator.random() < 0.65)]
    for maker in makers:
        thing = maker(generator)
        spot = plan.against_wall(generator, thing)
        if spot is None:
            continue
        _put(thing, spot, solids, lights)
        for other, beside in _company(generator, maker, thing, spot, plan):
            _put(other, beside, solids, lights)

    for _ in range(int(generator.integers(1, 4))):
        wide, low = generator.uniform(0.9, 1.9), generator.uniform(0.75, 1.0)
        high = min(size[1] - 0.25, low + generator.uniform(0.9, 1.3))
        spot = plan.on_wall(generator, wide + 1.0, above=low - 0.1)
        if spot is not None:
            parts, day = window(generator, wide, low, high)
            _put(Thing(parts, 0, 0, [day]), spot, solids, lights)
    spot = plan.on_wall(generator, 1.1, above=0.0)
    if spot is not None and generator.random() < 0.6:
        solids += placed(door(generator), spot.yaw, spot.position)
    for _ in range(int(generator.integers(2, 6))):
        parts, wide = picture(generator)
        spot = plan.on_wall(generator, wide + 0.1, above=1.15)
        if spot is not None:
            solids += placed(parts, spot.yaw, spot.position)
    for small, chance in ((plant, 0.5), (clutter, 0.6), (clutter, 0.4), (chair, 0.25)):
        if generator.random() < chance:
            spot = plan.free(generator, 0.55)
            if spot is not None:
                solids += placed(small(generator), spot.yaw, spot.position)

    solids += _ceiling_lamp(generator, size, lights)
    camera = plan.viewpoint(generator, solids)
    # Every lamp costs a pass of shadow rays; three of the strongest are what an eye notices.
    lights.sort(key=lambda lamp: -float(lamp.color.sum()))
    level = generator.uniform(0.16, 0.34)
    tint = hue(generator, (0.06, 0.14), (0.0, 0.2), (1.0, 1.0))
    around = Surroundings(above=level * tint, below=level * generator.uniform(0.45, 0.7) * tint, reach=0.8)
    return World(solids, camera, lights[:3], around)


def _put(thing: Thing, spot: Spot, solids: list[Solid], lights: list[Light]) -> None:
    solids += placed(thing.solids, spot.yaw, spot.position)
    for light in thing.lights:
        turned = spot.turned
        facing = None if light.facing is None else turned @ light.facing
        size = np.abs(turned @ light.size)
        lights.append(replace(light, position=turned @ light.position + spot.position, facing=facing, size=size))


def _company(generator: np.random.Generator, maker: Maker, thing: Thing, spot: Spot, plan: Plan) -> list[tuple[Thing, Spot]]:
    """What stands with a thing: nightstands beside a bed, a table and a rug before a sofa."""
    found = []
    if maker is bed:
        for side in (-1, 1):
            if generator.random() < 0.75:
                other = nightstand(generator)
                beside = spot.moved(side * (thing.width / 2 + other.width / 2 + 0.03), 0.0)
                if plan.take(beside, other.width, other.depth):
                    found.append((other, beside))
    if maker is sofa and generator.random() < 0.85:
        table = coffee_table(generator)
        before = spot.moved(generator.uniform(-0.2, 0.2), thing.depth + 0.4 + table.depth / 2)
        if plan.take(before.moved(0.0, -table.depth / 2), table.width, table.depth):
            found.append((table, before))
    if maker in (sofa, bed) and generator.random() < 0.6:
        wide, deep = generator.uniform(1.0, 1.5), generator.uniform(0.7, 1.1)
        rug = block((-wide, wide), (0, 0.012), (-deep, deep), Room.FLOOR, cloth(generator, patterned=0.6))
        middle = spot.moved(0.0, thing.depth + 0.3 if maker is sofa else thing.depth * 0.8)
        found.append((Thing([rug], 0, 0), middle))
    return found


def _ceiling_lamp(generator: np.random.Generator, size: Array, lights: list[Light]) -> list[Solid]:
    """A round lamp under the ceiling, or one that hangs; it may be off."""
    x, z = size[0] * generator.uniform(0.4, 0.6), size[2] * generator.uniform(0.4, 0.6)
    on = generator.random() < 0.85
    color = hue(generator, (0.08, 0.14), (0.05, 0.3), (1.0, 1.0))
    shining = Material(plain(color), glow=2.5 if on else 0.0)
    hanging = generator.random() < 0.4
    y = size[1] - (generator.uniform(0.45, 0.7) if hanging else 0.08)
    if hanging:
        solids = [rod(x, z, (y, size[1]), 0.008, Room.OBJECTS, metal(0.1)), ball((x, y, z), 0.16, Room.OBJECTS, shining)]
    else:
        solids = [rod(x, z, (size[1] - 0.08, size[1]), 0.2, Room.OBJECTS, shining, top=0.22)]
    if on:
        power = generator.uniform(2.0, 4.0)
        lights.append(Light(np.array([x, y - 0.1, z]), color * power, np.array([0.18, 0.04, 0.18])))
    return [replace(solid, casts=False) for solid in solids]
