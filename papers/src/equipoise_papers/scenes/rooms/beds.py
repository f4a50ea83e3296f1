"""A bed, and what stands beside it."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.parts import ball, block
from equipoise_papers.scenes.rooms.lamps import bulb
from equipoise_papers.scenes.rooms.materials import cloth, metal, wood
from equipoise_papers.scenes.rooms.small import book_stack, lampshade
from equipoise_papers.scenes.rooms.thing import Thing

__all__ = ["bed", "nightstand"]


def bed(generator: np.random.Generator) -> Thing:
    """Frame, mattress, blanket, pillows and a headboard against the wall."""
    width, length = float(generator.choice([1.0, 1.5, 1.8])), generator.uniform(1.95, 2.1)
    half, timber = width / 2, wood(generator)
    top = generator.uniform(0.42, 0.58)
    sheet, blanket = cloth(generator, np.full(3, 0.7), patterned=0), cloth(generator, patterned=0.45)
    end = generator.uniform(0.35, 0.75)
    solids = [
        block((-half, half), (0.0, top - 0.22), (0.04, length), Room.BED, timber),
        block((-half + 0.02, half - 0.02), (top - 0.22, top), (0.05, length - 0.02), Room.BED, sheet),
        block((-half - 0.03, half + 0.03), (0.16, top + 0.04), (end, length + 0.03), Room.BED, blanket),
        block((-half - 0.03, half + 0.03), (0.0, top + generator.uniform(0.25, 0.6)), (0.0, 0.06), Room.BED, timber),
    ]
    pillows = 1 if width < 1.2 else 2
    for number in range(pillows):
        x = (number + 0.5) / pillows * width - half
        solids.append(
            ball((x, top + 0.07, 0.3), (0.8 * half / pillows, 0.1, 0.2), Room.BED, cloth(generator, np.full(3, 0.75)))
        )
    return Thing(solids, width + 0.1, length + 0.1, room_in_front=0.5)


def nightstand(generator: np.random.Generator) -> Thing:
    """Small, with a lamp or books."""
    half, height, depth, timber = 0.23, generator.uniform(0.45, 0.6), 0.4, wood(generator)
    label = Room.FURNITURE
    solids = [
        block((-half, half), (0.0, height), (0, depth), label, timber),
        block((-half + 0.02, half - 0.02), (height - 0.2, height - 0.03), (depth, depth + 0.015), label, timber),
        ball((0, height - 0.11, depth + 0.03), 0.018, label, metal(0.4)),
    ]
    thing = Thing(solids, 2 * half, depth + 0.05, room_in_front=0.1)
    if generator.random() < 0.65:
        lamp, up = lampshade(generator, 0.25)
        thing.add(lamp, (0.0, height, 0.18))
        thing.lights.append(bulb(generator, (0.0, height + up, 0.18), 0.8))
    else:
        thing.add(book_stack(generator, int(generator.integers(1, 4))), (0.0, height, 0.2))
    return thing
