"""Furniture: beds, seats, tables, cupboards and shelves."""

from __future__ import annotations

import itertools

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.rooms.materials import cloth, metal, painted, wood
from equipoise_papers.scenes.rooms.things import Thing, book_row, book_stack, bulb, cushion, laid, lampshade, trinket
from equipoise_papers.scenes.solid import Material, Solid, ball, block, limb, placed, rod
from equipoise_papers.scenes.textures import screen

__all__ = [
    "armchair",
    "bed",
    "bookcase",
    "chair",
    "coffee_table",
    "cupboard",
    "desk",
    "dining",
    "nightstand",
    "sofa",
    "tv_stand",
]


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


def _seat(generator: np.random.Generator, width: float, label: int) -> list[Solid]:
    """Seat, back and arms, upholstered."""
    half, depth = width / 2, generator.uniform(0.8, 0.95)
    fabric = cloth(generator, patterned=0.2)
    seat, back, arm = generator.uniform(0.38, 0.46), generator.uniform(0.75, 0.95), generator.uniform(0.12, 0.2)
    solids = [
        block((-half, half), (0.06, seat - 0.12), (0.02, depth), label, fabric),
        block((-half, half), (0.06, back), (0.0, 0.2), label, fabric),
        block((-half, -half + arm), (0.06, seat + 0.2), (0.0, depth), label, fabric),
        block((half - arm, half), (0.06, seat + 0.2), (0.0, depth), label, fabric),
    ]
    places = max(1, round((width - 2 * arm) / 0.65))
    step = (width - 2 * arm) / places
    for number in range(places):
        x = -half + arm + number * step
        solids.append(block((x + 0.008, x + step - 0.008), (seat - 0.12, seat), (0.18, depth + 0.02), label, fabric))
        leaning = (x + 0.015, x + step - 0.015), (seat, back + 0.06), (0.18, 0.32)
        solids.append(block(*leaning, label, fabric, pitch=-0.15))
    feet = metal(0.06)
    corners = itertools.product((-half + 0.08, half - 0.08), (0.08, depth - 0.08))
    return solids + [rod(x, z, (0, 0.06), 0.025, label, feet) for x, z in corners]


def sofa(generator: np.random.Generator) -> Thing:
    """With cushions, for two or three."""
    width = generator.uniform(1.5, 2.3)
    thing = Thing(_seat(generator, width, Room.SOFA), width, 0.98, room_in_front=0.6)
    for side in (-1, 1):
        if generator.random() < 0.7:
            thing.add(cushion(generator, 0.42), (side * (width / 2 - 0.42), 0.42, 0.42))
    return thing


def armchair(generator: np.random.Generator) -> Thing:
    """A sofa for one, which counts as a chair."""
    return Thing(_seat(generator, 0.9, Room.CHAIR), 0.95, 0.98, room_in_front=0.5)


def chair(generator: np.random.Generator) -> list[Solid]:
    """A chair around the origin, which looks along +z; four legs or a swivel foot."""
    label = Room.CHAIR
    timber = wood(generator) if generator.random() < 0.7 else painted(generator)
    pad = timber if generator.random() < 0.5 else cloth(generator)
    half, seat, back = generator.uniform(0.19, 0.24), generator.uniform(0.43, 0.47), generator.uniform(0.82, 1.0)
    solids = [block((-half, half), (seat - 0.05, seat), (-half, half), label, pad)]
    if generator.random() < 0.25:
        dark = metal(0.05)
        solids.append(rod(0, 0, (0.08, seat - 0.05), 0.03, label, dark))
        for number in range(5):
            angle = 2 * np.pi * number / 5
            solids.append(limb((0, 0.09, 0), (0.28 * np.sin(angle), 0.04, 0.28 * np.cos(angle)), 0.022, label, dark))
        solids.append(block((-half * 0.9, half * 0.9), (seat + 0.15, back), (-half - 0.05, -half), label, pad, pitch=-0.12))
        solids.append(block((-0.03, 0.03), (seat - 0.04, seat + 0.3), (-half - 0.05, -half - 0.01), label, dark))
        return solids
    legs = [(x, z) for x in (-half + 0.02, half - 0.02) for z in (-half + 0.02, half - 0.02)]
    for x, z in legs:
        solids.append(block((x - 0.02, x + 0.02), (0, back if z < 0 else seat - 0.05), (z - 0.02, z + 0.02), label, timber))
    if generator.random() < 0.5:
        solids.append(block((-half, half), (seat + 0.12, back), (-half, -half + 0.03), label, pad))
    else:
        bars = np.linspace(seat + 0.15, back - 0.06, 3)
        solids += [block((-half, half), (y, y + 0.05), (-half + 0.005, -half + 0.03), label, timber) for y in bars]
    return solids


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
