"""Sofas, armchairs and chairs."""

from __future__ import annotations

import itertools

import numpy as np

from equipoise_papers.scenes.classes import Room
from equipoise_papers.scenes.parts import block, limb, rod
from equipoise_papers.scenes.rooms.materials import cloth, metal, painted, wood
from equipoise_papers.scenes.rooms.small import cushion
from equipoise_papers.scenes.rooms.thing import Thing
from equipoise_papers.scenes.solid import Solid

__all__ = ["armchair", "chair", "sofa"]


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
