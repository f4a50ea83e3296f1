"""Tables and what belongs to them: chairs around one, a screen on another."""

from __future__ import annotations

import itertools

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.material import Material
from equipoise_papers.scenes.parts import block, rod
from equipoise_papers.scenes.rooms.laid import laid
from equipoise_papers.scenes.rooms.lamps import bulb
from equipoise_papers.scenes.rooms.materials import metal, wood
from equipoise_papers.scenes.rooms.seating import chair
from equipoise_papers.scenes.rooms.small import lampshade
from equipoise_papers.scenes.rooms.thing import Thing
from equipoise_papers.scenes.solid import Solid, placed
from equipoise_papers.scenes.textures import screen

__all__ = ["coffee_table", "desk", "dining"]


def _table(generator: np.random.Generator, width: float, depth: float, height: float, timber: Material) -> list[Solid]:
    """A board on four legs (or one foot, if round) around the origin."""
    label = Room.TABLE
    if abs(width - depth) < 0.1 and generator.random() < 0.6:
        return [
            rod(0, 0, (height - 0.04, height), width / 2, label, timber),
            rod(0, 0, (0.03, height - 0.04), 0.05, label, timber),
            rod(0, 0, (0, 0.03), width / 4, label, timber),
        ]
    a, b = width / 2, depth / 2
    leg = generator.uniform(0.025, 0.045)
    solids = [block((-a, a), (height - 0.04, height), (-b, b), label, timber)]
    for x, z in itertools.product((-a + leg, a - leg), (-b + leg, b - leg)):
        solids += [block((x - leg, x + leg), (0, height - 0.04), (z - leg, z + leg), label, timber)]
    if generator.random() < 0.5:
        solids.append(block((-a + leg, a - leg), (height - 0.13, height - 0.04), (-b + leg, b - leg), label, timber))
    return solids


def dining(generator: np.random.Generator) -> Thing:
    """A table with chairs around it; its back is a chair's back."""
    width, depth = generator.uniform(1.2, 1.8), generator.uniform(0.8, 1.0)
    if generator.random() < 0.35:
        width = depth = generator.uniform(0.9, 1.2)
    middle = depth / 2 + 0.55
    height = generator.uniform(0.72, 0.77)
    solids = placed(_table(generator, width, depth, height, wood(generator)), 0.0, np.array([0.0, 0.0, middle]))
    alike = int(generator.integers(2**32))  # all chairs of a table are of one make
    places = [(x, side) for x in ([0.0] if width < 1.25 else [-width / 4, width / 4]) for side in (-1, 1)]
    for x, side in places:
        if generator.random() < 0.12:
            continue
        yaw = (0.0 if side < 0 else np.pi) + generator.uniform(-0.25, 0.25)
        reach = depth / 2 + generator.uniform(0.0, 0.25)
        solids += placed(chair(np.random.default_rng(alike)), yaw, np.array([x, 0.0, middle + side * reach]))
    thing = Thing(solids, width + 0.2, depth + 1.1, room_in_front=0.2)
    laid(generator, thing, [(-width / 4, height, middle), (0.05, height, middle + 0.1), (width / 4, height, middle - 0.1)])
    return thing


def coffee_table(generator: np.random.Generator) -> Thing:
    """Low, for in front of a sofa; around its middle."""
    width, depth, height = generator.uniform(0.8, 1.2), generator.uniform(0.5, 0.7), generator.uniform(0.35, 0.45)
    thing = Thing(_table(generator, width, depth, height, wood(generator)), width, depth)
    laid(generator, thing, [(-width / 4, height, 0.0), (width / 4, height, 0.05)])
    return thing


def desk(generator: np.random.Generator) -> Thing:
    """With a chair, a screen or a lamp, and papers."""
    width, depth, height = generator.uniform(1.1, 1.6), generator.uniform(0.6, 0.75), generator.uniform(0.72, 0.76)
    solids = placed(_table(generator, width, depth, height, wood(generator)), 0.0, np.array([0.0, 0.0, depth / 2]))
    yaw, x = np.pi + generator.uniform(-0.6, 0.6), generator.uniform(-0.2, 0.2)
    solids += placed(chair(generator), yaw, np.array([x, 0.0, depth + generator.uniform(0.1, 0.35)]))
    thing = Thing(solids, width, depth + 0.7, room_in_front=0.2)
    if generator.random() < 0.7:
        half, tall = generator.uniform(0.22, 0.3), generator.uniform(0.28, 0.36)
        shown = Material(screen(generator, bool(generator.random() < 0.7)), gloss=0.2, glow=1.0)
        thing.add(
            [
                block((-half, half), (0.1, 0.1 + tall), (-0.015, 0.015), Room.TV, shown),
                block((-0.03, 0.03), (0, 0.12), (-0.03, -0.01), Room.TV, metal(0.05)),
                block((-0.12, 0.12), (0, 0.015), (-0.08, 0.06), Room.TV, metal(0.05)),
            ],
            (0.0, height, 0.2),
        )
    if generator.random() < 0.5:
        lamp, up = lampshade(generator, 0.32)
        x = width / 2 - 0.18
        thing.add(lamp, (x, height, 0.2))
        thing.lights.append(bulb(generator, (x, height + up, 0.2), 0.8))
    laid(generator, thing, [(-width / 2 + 0.2, height, 0.25), (width / 4, height, 0.45)])
    return thing
