"""The shell of a room, and what hangs on its walls: windows, doors, pictures, curtains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.rendering import Light
from equipoise_papers.scenes.rooms.materials import cloth, floor, metal, painted, wallpaper, white, wood
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Material, Solid, ball, block, rod
from equipoise_papers.scenes.textures import grain, hue, painting, view

__all__ = ["door", "picture", "shell", "window"]

_THICK = 0.3


def shell(generator: np.random.Generator, size: Array) -> list[Solid]:
    """Floor, ceiling and four walls of a room from (0, 0, 0) to ``size``, with skirting boards; they cast no shadows inside."""
    width, height, length = size
    paper, other = wallpaper(generator), wallpaper(generator)
    papers = [paper, paper, paper, other if generator.random() < 0.5 else paper]
    generator.shuffle(papers)
    ceiling = Material(grain(generator, np.full(3, generator.uniform(0.7, 0.85)), size=0.5, depth=0.02))
    far = _THICK
    anchor = np.zeros(3)
    walls = [
        block((-far, 0), (0, height), (-far, length + far), Room.WALL, papers[0]),
        block((width, width + far), (0, height), (-far, length + far), Room.WALL, papers[1]),
        block((0, width), (0, height), (-far, 0), Room.WALL, papers[2]),
        block((0, width), (0, height), (length, length + far), Room.WALL, papers[3]),
        block((-far, width + far), (-far, 0), (-far, length + far), Room.FLOOR, floor(generator)),
        block((-far, width + far), (height, height + far), (-far, length + far), Room.CEILING, ceiling),
    ]
    board, tall = white(0.7) if generator.random() < 0.7 else wood(generator), generator.uniform(0.06, 0.12)
    skirting = [
        block((0, 0.015), (0, tall), (0, length), Room.WALL, board),
        block((width - 0.015, width), (0, tall), (0, length), Room.WALL, board),
        block((0, width), (0, tall), (0, 0.015), Room.WALL, board),
        block((0, width), (0, tall), (length - 0.015, length), Room.WALL, board),
    ]
    return [replace(wall, anchor=anchor, casts=False) for wall in walls + skirting]


def window(generator: np.random.Generator, width: float, low: float, high: float) -> tuple[list[Solid], Light]:
    """Panes in a frame on a wall (z = 0), with or without curtains, and the light that comes in."""
    half, tall = width / 2, high - low
    frame = white(0.75) if generator.random() < 0.7 else wood(generator)
    outside = Material(view(generator, tall), glow=float(generator.uniform(1.6, 3.0)), gloss=0.1, sheen=80)
    label = Room.WINDOW
    solids = [
        block((-half, half), (low, high), (0, 0.015), label, outside),
        block((-half - 0.06, half + 0.06), (high, high + 0.06), (0, 0.05), label, frame),
        block((-half - 0.1, half + 0.1), (low - 0.05, low), (0, 0.12), label, frame),
    ]
    panes = max(1, round(width / 0.6))
    for number in range(panes + 1):
        x = -half + width * number / panes
        wide = 0.05 if number in (0, panes) else 0.025
        solids.append(block((x - wide, x + wide), (low, high), (0, 0.045), label, frame))
    if generator.random() < 0.4:
        y = low + tall * 0.65
        solids.append(block((-half, half), (y - 0.02, y + 0.02), (0, 0.04), label, frame))
    if generator.random() < 0.55:
        fabric = cloth(generator, patterned=0.3)
        top, bottom = high + 0.15, (0.05 if generator.random() < 0.6 else low - 0.15)
        solids.append(block((-half - 0.5, half + 0.5), (top, top + 0.03), (0.1, 0.13), label, metal(0.2)))
        drawn = generator.uniform(0.25, 0.45)
        for side in (-1, 1):
            folds = 4
            for fold in range(folds):
                x = side * (half + 0.42 - drawn * (fold + 0.5) * 1.1 / folds * 1.6)
                # Round folds rather than a board: curtains are seen by their shading.
                solids.append(rod(x, 0.11, (bottom, top), drawn * 0.25, label, fabric))
    day = hue(generator, (0.52, 0.62), (0.05, 0.3), (1.0, 1.0))
    position = np.array([0.0, (low + high) / 2, 0.25])
    power = generator.uniform(1.5, 4.5) * width * tall
    light = Light(position, day * power, np.array([half * 0.8, tall * 0.4, 0.0]), facing=np.array([0.0, 0.0, 1.0]))
    # The light is that which comes past frame and curtains; they do not keep it away once more.
    return [replace(solid, casts=False) for solid in solids], light


def door(generator: np.random.Generator) -> list[Solid]:
    """A door leaf in its frame on a wall (z = 0); doors count as wall."""
    frame = white(0.72)
    leaf = frame if generator.random() < 0.5 else wood(generator, along=1)
    solids = [
        block((-0.42, 0.42), (0, 2.02), (0, 0.03), Room.WALL, leaf),
        block((-0.5, -0.42), (0, 2.1), (0, 0.05), Room.WALL, frame),
        block((0.42, 0.5), (0, 2.1), (0, 0.05), Room.WALL, frame),
        block((-0.5, 0.5), (2.02, 2.1), (0, 0.05), Room.WALL, frame),
        ball((0.34, 1.02, 0.06), 0.028, Room.WALL, metal(0.4)),
    ]
    for low, high in ((0.15, 0.9), (1.1, 1.85)):
        solids.append(block((-0.3, 0.3), (low, high), (0.03, 0.04), Room.WALL, leaf))
    return solids


def picture(generator: np.random.Generator) -> tuple[list[Solid], float]:
    """A framed picture on a wall (z = 0), its middle at eye level; and its width."""
    half, tall = generator.uniform(0.18, 0.55), generator.uniform(0.16, 0.42)
    y = generator.uniform(1.45, 1.7)
    frame = wood(generator) if generator.random() < 0.6 else painted(generator, np.full(3, 0.02))
    canvas = Material(painting(generator, 2 * half, 2 * tall), gloss=0.05)
    edge = generator.uniform(0.02, 0.05)
    solids = [
        block((-half - edge, half + edge), (y - tall - edge, y + tall + edge), (0, 0.025), Room.PICTURE, frame),
        block((-half, half), (y - tall, y + tall), (0.0, 0.03), Room.PICTURE, canvas),
    ]
    return solids, 2 * (half + edge)
