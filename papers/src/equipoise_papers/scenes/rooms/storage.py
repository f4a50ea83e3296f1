"""Shelves, cupboards, and the board that a television stands on."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.material import Material
from equipoise_papers.scenes.parts import ball, block
from equipoise_papers.scenes.rooms.laid import laid
from equipoise_papers.scenes.rooms.lamps import bulb
from equipoise_papers.scenes.rooms.materials import metal, painted, wood
from equipoise_papers.scenes.rooms.small import book_row, lampshade, trinket
from equipoise_papers.scenes.rooms.thing import Thing
from equipoise_papers.scenes.textures import screen

__all__ = ["bookcase", "cupboard", "tv_stand"]


def bookcase(generator: np.random.Generator) -> Thing:
    """Boards with rows of books and a few other things."""
    width, height, depth = generator.uniform(0.7, 1.4), generator.uniform(1.2, 2.1), generator.uniform(0.26, 0.34)
    half, timber, label = width / 2, wood(generator), Room.FURNITURE
    boards = max(3, round(height / 0.36))
    step = height / boards
    solids = [
        block((-half, -half + 0.025), (0, height), (0, depth), label, timber),
        block((half - 0.025, half), (0, height), (0, depth), label, timber),
        block((-half, half), (0, height), (0, 0.012), label, timber),
    ]
    thing = Thing(solids, width, depth, room_in_front=0.4)
    for number in range(boards + 1):
        y = min(number * step, height - 0.025)
        solids.append(block((-half, half), (y, y + 0.025), (0, depth), label, timber))
        if number == boards:
            break
        if generator.random() < 0.75:
            thing.add(book_row(generator, width - 0.06, step - 0.03, depth), (0.0, y + 0.025, 0.0))
        else:
            thing.add(trinket(generator), (generator.uniform(-0.25, 0.25) * width, y + 0.025, depth / 2))
    return thing


def cupboard(generator: np.random.Generator) -> Thing:
    """A wardrobe, a chest of drawers or a sideboard."""
    kind = generator.integers(3)
    width, height, depth = ((1.3, 2.0, 0.58), (0.9, 0.95, 0.45), (1.5, 0.75, 0.42))[kind]
    width, height = width * generator.uniform(0.85, 1.2), height * generator.uniform(0.9, 1.1)
    half, timber, label = width / 2, wood(generator, along=1 if kind == 0 else 0), Room.FURNITURE
    front = timber if generator.random() < 0.6 else wood(generator, along=1 if kind == 0 else 0)
    solids = [
        block((-half, half), (0.06, height), (0, depth), label, timber),
        block((-half + 0.03, half - 0.03), (0, 0.06), (0.02, depth - 0.04), label, painted(generator, np.full(3, 0.03))),
    ]
    columns, rows = (2, 1) if kind == 0 else (1 if kind == 1 else 3, 3 if kind == 1 else 2)
    knob = metal(0.4)
    for column in range(columns):
        for row in range(rows):
            x0, x1 = -half + width * column / columns + 0.012, -half + width * (column + 1) / columns - 0.012
            y0 = 0.08 + (height - 0.1) * row / rows
            y1 = 0.08 + (height - 0.1) * (row + 1) / rows - 0.018
            solids.append(block((x0, x1), (y0, y1), (depth, depth + 0.018), label, front))
            x = (x1 - 0.06 if column == 0 else x0 + 0.06) if kind == 0 else (x0 + x1) / 2
            solids.append(ball((x, (y0 + y1) / 2, depth + 0.032), 0.018, label, knob))
    thing = Thing(solids, width, depth + 0.03, room_in_front=0.5)
    if kind:
        laid(generator, thing, [(-half * 0.55, height, depth / 2), (half * 0.5, height, depth / 2)])
        if generator.random() < 0.35:
            lamp, up = lampshade(generator, 0.3)
            thing.add(lamp, (0.0, height, depth / 2))
            thing.lights.append(bulb(generator, (0.0, height + up, depth / 2), 0.8))
    return thing


def tv_stand(generator: np.random.Generator) -> Thing:
    """A television on a low board."""
    width, height, depth = generator.uniform(1.2, 1.8), generator.uniform(0.4, 0.6), 0.42
    half, timber = width / 2, wood(generator)
    label = Room.FURNITURE
    solids = [
        block((-half, half), (height - 0.03, height), (0, depth), label, timber),
        block((-half, half), (0.08, 0.11), (0, depth), label, timber),
        block((-half, half), (0.08, height), (0, 0.015), label, timber),
    ]
    uprights = (-half, -0.015, half - 0.03)
    solids += [block((x, x + 0.03), (0.0, height - 0.03), (0, depth), label, timber) for x in uprights]
    wide = generator.uniform(0.45, 0.7)
    tall = wide * 1.12
    shown = Material(screen(generator, bool(generator.random() < 0.6)), gloss=0.25, glow=1.2, sheen=80)
    solids += [
        block((-wide, wide), (height + 0.08, height + 0.08 + tall), (0.18, 0.23), Room.TV, shown),
        block((-0.05, 0.05), (height, height + 0.1), (0.17, 0.2), Room.TV, metal(0.04)),
        block((-0.2, 0.2), (height, height + 0.02), (0.12, 0.3), Room.TV, metal(0.04)),
    ]
    thing = Thing(solids, width, depth, room_in_front=0.8)
    laid(generator, thing, [(-half * 0.5, 0.11, depth / 2), (half * 0.5, 0.11, depth / 2)])
    return thing
