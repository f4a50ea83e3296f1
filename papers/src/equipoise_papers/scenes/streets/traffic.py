"""Vehicles and people."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.classes import Street
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Material, Solid, Texture, ball, block, limb, wedge
from equipoise_papers.scenes.textures import hue, mixed, pick, plain

__all__ = ["bus", "car", "person"]

_LABEL = Street.VEHICLE
_TYRE = Material(plain(np.full(3, 0.015)))
_RIM = Material(plain(np.full(3, 0.25)), gloss=0.2)
_DARK = Material(plain(np.full(3, 0.02)))


def _lacquer(generator: np.random.Generator) -> Array:
    if generator.random() < 0.6:
        return np.full(3, pick(generator, (0.02, 0.05, 0.15, 0.35, 0.7)))
    return hue(generator, saturations=(0.5, 0.9), values=(0.3, 0.8))


def _glazed(color: Array, half_width: float) -> Texture:
    """Glass all around below a roof of the car's color, with pillars."""
    glass = np.array([0.02, 0.03, 0.04])

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        side = np.abs(normals[0]) > 0.7
        pillar = side & (np.abs(points[2] + 0.1) < 0.05)
        edge = ~side & (np.abs(points[0]) > half_width - 0.07)
        return mixed(glass, color, (normals[1] > 0.9) | pillar | edge)

    return texture


def _wheels(half: float, axles: tuple[float, ...], radius: float) -> list[Solid]:
    solids = []
    for z in axles:
        for side in (-1, 1):
            out, inner = side * (half + 0.01), side * (half - 0.2)
            solids.append(limb((inner, radius, z), (out, radius, z), radius, _LABEL, _TYRE))
            solids.append(limb((out, radius, z), (out + side * 0.012, radius, z), radius * 0.6, _LABEL, _RIM))
    return solids


def _lamps(half: float, length: float, y: float) -> list[Solid]:
    white, red = Material(plain(np.array([0.9, 0.9, 0.8])), gloss=0.4), Material(plain(np.array([0.45, 0.01, 0.01])), glow=0.5)
    plate = Material(plain(np.full(3, 0.7)))
    end = length / 2
    solids = [
        block((-0.26, 0.26), (y - 0.3, y - 0.19), (-end - 0.012, -end), _LABEL, plate),
        block((-0.26, 0.26), (y - 0.3, y - 0.19), (end, end + 0.012), _LABEL, plate),
    ]
    for side in (-1, 1):
        x = sorted((side * (half - 0.35), side * (half - 0.03)))
        solids.append(block((x[0], x[1]), (y - 0.07, y + 0.07), (end - 0.02, end + 0.015), _LABEL, white))
        solids.append(block((x[0], x[1]), (y - 0.09, y + 0.09), (-end - 0.015, -end + 0.02), _LABEL, red))
    return solids


def car(generator: np.random.Generator) -> list[Solid]:
    """A saloon, a hatchback or a van."""
    kind = generator.choice(["saloon", "hatchback", "hatchback", "van"], p=[0.35, 0.25, 0.25, 0.15])
    color = _lacquer(generator)
    paint = Material(plain(color), gloss=0.35, sheen=40)
    half = generator.uniform(0.82, 0.92)
    length, height = {"saloon": (4.6, 1.42), "hatchback": (4.0, 1.5), "van": (5.0, 2.1)}[str(kind)]
    length, height = length * generator.uniform(0.95, 1.05), height * generator.uniform(0.95, 1.06)
    end, belt = length / 2, (0.95 if kind != "van" else 1.15)
    body = [(-end, 0.35), (-end, belt - 0.08), (-end + 0.12, belt), (end - 1.0, belt), (end - 0.1, belt - 0.2), (end, 0.62)]
    body += [(end - 0.05, 0.32), (-end + 0.1, 0.22)]
    if kind == "saloon":
        cabin = [(-end + 0.55, belt), (-end + 1.2, height), (end - 1.95, height), (end - 1.15, belt)]
    elif kind == "hatchback":
        cabin = [(-end + 0.05, belt), (-end + 0.45, height), (end - 1.8, height), (end - 0.95, belt)]
    else:
        cabin = [(-end + 0.02, belt), (-end + 0.08, height), (end - 1.3, height), (end - 0.6, belt)]
    glazed = Material(_glazed(color, half - 0.08), gloss=0.4, sheen=60)
    solids = [
        wedge(body, (-half, half), _LABEL, paint),
        wedge(cabin, (-half + 0.08, half - 0.08), _LABEL, glazed),
        block((-half + 0.05, half - 0.05), (0.2, 0.4), (-end + 0.2, end - 0.25), _LABEL, _DARK),
        block((-half * 0.5, half * 0.5), (0.42, 0.58), (end - 0.06, end + 0.008), _LABEL, _DARK),
    ]
    if kind == "van" and generator.random() < 0.6:  # no windows behind the driver
        solids.append(block((-half + 0.07, half - 0.07), (belt, height - 0.02), (-end + 0.1, end - 2.0), _LABEL, paint))
    for side in (-1, 1):
        x = sorted((side * half, side * (half + 0.16)))
        solids.append(block((x[0], x[1]), (belt + 0.02, belt + 0.14), (end - 1.65, end - 1.5), _LABEL, paint))
    return solids + _wheels(half - 0.02, (-end + 0.8, end - 0.85), 0.32) + _lamps(half, length, 0.72)


def bus(generator: np.random.Generator) -> list[Solid]:
    """A bus or a lorry."""
    color = hue(generator, saturations=(0.4, 0.9), values=(0.4, 0.9))
    half, length, height = 1.25, generator.uniform(7.5, 11.0), generator.uniform(2.8, 3.2)
    end = length / 2
    paint = Material(plain(color), gloss=0.25)
    glass = Material(plain(np.array([0.02, 0.03, 0.04])), gloss=0.4, sheen=60)
    solids = [block((-half, half), (0.35, height), (-end, end), _LABEL, paint)]
    if generator.random() < 0.6:
        panes = int(length / 1.4)
        step = (length - 0.6) / panes
        for number in range(panes):
            z = -end + 0.3 + number * step
            solids.append(block((-half - 0.01, half + 0.01), (1.3, height - 0.5), (z + 0.06, z + step - 0.06), _LABEL, glass))
    else:
        cab = Material(plain(_lacquer(generator)), gloss=0.3)
        solids.append(block((-half + 0.05, half - 0.05), (0.4, height - 0.5), (end, end + 1.6), _LABEL, cab))
        end += 1.6
    ends = (-end - 0.01, end - 0.01)
    solids += [block((-half + 0.12, half - 0.12), (1.2, height - 0.7), (z, z + 0.02), _LABEL, glass) for z in ends]
    return solids + _wheels(half - 0.02, (-length / 2 + 1.8, end - 1.2), 0.48) + _lamps(half, 2 * end, 0.75)


def person(generator: np.random.Generator) -> list[Solid]:
    """Head, hair, trunk, arms and legs, in mid step or standing."""
    size = generator.uniform(1.5, 1.9) / 1.75
    label = Street.HUMAN
    tone = mixed(np.array([0.62, 0.4, 0.28]), np.array([0.12, 0.06, 0.04]), generator.random(1))[:, 0]
    skin = Material(plain(tone))
    hair = Material(plain(np.array([0.05, 0.03, 0.02]) * generator.uniform(0.4, 5.0)))
    coat = Material(plain(hue(generator, saturations=(0.1, 0.8), values=(0.1, 0.85))))
    trousers = Material(plain(hue(generator, (0.55, 0.7), (0.0, 0.5), (0.08, 0.5))))
    shoes = Material(plain(np.full(3, 0.02)))
    stride, swing = generator.uniform(0.0, 0.35) * size, generator.uniform(0.0, 0.3) * size
    waist, shoulder, top = 0.88 * size, 1.42 * size, 1.75 * size
    solids = [
        limb((0, waist - 0.06 * size, 0), (0, shoulder, 0), 0.16 * size, label, coat, thin=1.15),
        ball((0, shoulder, 0), (0.2 * size, 0.08 * size, 0.12 * size), label, coat),
        limb((0, shoulder, 0), (0, shoulder + 0.12 * size, 0), 0.055 * size, label, skin),
        ball((0, top - 0.12 * size, 0.01), (0.085 * size, 0.115 * size, 0.1 * size), label, skin),
        ball((0, top - 0.085 * size, -0.02 * size), (0.09 * size, 0.095 * size, 0.1 * size), label, hair),
    ]
    for side in (-1, 1):
        foot = np.array([side * 0.09 * size, 0.06, side * stride])
        solids.append(limb((side * 0.085 * size, waist, 0), foot, 0.09 * size, label, trousers, thin=0.65))
        solids.append(ball(np.add(foot, (0, -0.015, 0.05)), (0.05 * size, 0.045, 0.12 * size), label, shoes))
        hand = (side * 0.27 * size, 0.82 * size, -side * swing + 0.05)
        solids.append(limb((side * 0.2 * size, shoulder - 0.02, 0), hand, 0.06 * size, label, coat, thin=0.7))
        solids.append(ball(hand, 0.045 * size, label, skin))
    if generator.random() < 0.3:
        bag = Material(plain(hue(generator, saturations=(0.2, 0.8), values=(0.1, 0.6))))
        solids.append(ball((0, 1.18 * size, -0.2 * size), (0.15 * size, 0.22 * size, 0.1 * size), label, bag))
    return solids
