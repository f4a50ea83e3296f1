"""A street seen from a car: what stands where, sun and sky."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.rendering import Light, Surroundings
from equipoise_papers.scenes.rendering.lights import World
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Solid, placed
from equipoise_papers.scenes.streets.roadside import bin_, bollard, bush, fir, hedge, lamp_post, sign, traffic_light, tree
from equipoise_papers.scenes.streets.surroundings import FAR, KERB, ground, house, wall
from equipoise_papers.scenes.streets.traffic import bus, car, person
from equipoise_papers.scenes.textures import clouds, hue, mixed

__all__ = ["street"]


def street(generator: np.random.Generator) -> World:
    """Draws a street; the camera drives on the right and looks along +z, so −x is to its right."""
    half, pavement = generator.uniform(3.4, 6.0), generator.uniform(2.2, 4.5)
    crossing = float(generator.uniform(8, 30)) if generator.random() < 0.35 else None
    solids = ground(generator, half, pavement, crossing)
    urban = generator.random()
    for side in (-1, 1):
        solids += _row(generator, side, half + pavement, urban)
        solids += _kerbside(generator, side, half, pavement, crossing)
    solids += _traffic(generator, half)
    if generator.random() < 0.6:
        solids += _end(generator)

    position = np.array([-_lane(half) + generator.uniform(-0.4, 0.4), generator.uniform(1.25, 1.7), 0.0])
    target = np.add(position, (generator.normal(0, 5.0), generator.normal(-1.0, 2.0), 60.0))
    view = float(np.deg2rad(generator.uniform(50, 68)))
    camera = Camera.looking(position, target, view, float(np.deg2rad(generator.normal(0, 0.6))))
    return World(solids, camera, *_weather(generator))


def _lane(half: float) -> float:
    """How far from the middle cars drive: beside parked ones, if the road is wide enough for them."""
    return min(half / 2, half - 3.0) if half > 4.2 else half / 2


def _row(generator: np.random.Generator, side: int, front: float, urban: float) -> list[Solid]:
    """Houses, gaps with trees, hedges and walls along one side."""
    solids, z = [], float(generator.uniform(-14, -4))
    yaw = 0.0 if side < 0 else np.pi
    setback = 0.0 if urban > 0.4 else generator.uniform(2.0, 6.0)
    while z < 120:
        length = float(generator.uniform(8, 18))
        gap = generator.random() < 0.12 + 0.25 * (1 - urban)
        x = side * (front + setback)
        if gap:
            for _ in range(2):
                where = np.array([x + side * generator.uniform(1, 8), KERB, z + generator.uniform(1, length - 1)])
                solids += placed(tree(generator) if generator.random() < 0.75 else fir(generator), 0.0, where)
        else:
            storeys = int(generator.integers(2, 4)) if urban < 0.4 else int(generator.integers(3, 7))
            at = np.array([x + side * generator.choice([0.0, 0.6]), KERB, z if side < 0 else z + length])
            solids += placed(house(generator, length, storeys), yaw, at)
        if setback and z < 60:
            kind = generator.random()
            at = np.array([side * (front + 0.4), KERB, z + length / 2])
            if kind < 0.4:
                solids += placed(hedge(generator, length * 0.9), 0.0, at)
            elif kind < 0.7:
                solids += placed(wall(generator, length * 0.9), 0.0, np.subtract(at, (0, 0, length * 0.45)))
            elif kind < 0.9:
                solids += placed(bush(generator), 0.0, np.add(at, (side * 0.8, 0, 0)))
        z += length + (0.0 if urban > 0.4 and not gap else generator.uniform(1.5, 5.0))
    return solids


def _kerbside(generator: np.random.Generator, side: int, half: float, pavement: float, crossing: float | None) -> list[Solid]:
    """Lamps, trees, signs, bins, people on the pavement; parked cars below it."""
    solids = []
    edge = side * (half + 0.55)
    start, pitch = generator.uniform(4, 14), generator.uniform(16, 26)
    lamps = generator.random() < 0.75
    avenue = generator.random() < 0.45
    for number in range(5):
        z = start + pitch * number
        if lamps:
            solids += placed(lamp_post(generator, -side * 1.1), 0.0, np.array([edge, KERB, z]))
        if avenue:
            solids += placed(tree(generator), generator.uniform(0, 6), np.array([edge, KERB, z + pitch / 2]))
    small: tuple[Callable[[np.random.Generator], list[Solid]], ...] = (sign, sign, traffic_light, bin_, bollard)
    for maker in small:
        if generator.random() < 0.5:
            solids += placed(maker(generator), 0.0, np.array([edge, KERB, generator.uniform(5, 35)]))
    if generator.random() < 0.3:
        first = generator.uniform(4, 14)
        for number in range(6):
            solids += placed(bollard(generator), 0.0, np.array([edge, KERB, first + 1.8 * number]))
    for _ in range(int(generator.integers(1, 6))):
        x = side * (half + generator.uniform(0.9, pavement - 0.3))
        yaw = generator.choice([0.0, np.pi]) + generator.normal(0, 0.4)
        solids += placed(person(generator), yaw, np.array([x, KERB, 4 + 32 * generator.random() ** 1.3]))
    if crossing is not None and generator.random() < 0.7:
        at = np.array([side * generator.uniform(0.5, half - 0.5), 0.0, crossing + generator.uniform(-1, 1)])
        solids += placed(person(generator), -side * np.pi / 2, at)
    if generator.random() < 0.8 and half > 4.2:  # otherwise there is no room for parked cars
        z = generator.uniform(6, 14)
        while z < 55:
            if generator.random() < 0.65 and (crossing is None or abs(z - crossing) > 5):
                yaw = 0.0 if side < 0 or generator.random() < 0.3 else np.pi
                at = np.array([side * (half - 1.05), 0.0, z])
                solids += placed(car(generator), yaw + generator.normal(0, 0.02), at)
            z += generator.uniform(5.4, 7.5)
    return solids


def _traffic(generator: np.random.Generator, half: float) -> list[Solid]:
    """Ahead in the own lane, and coming on the other side."""
    solids = []
    for lane, yaw, first in ((-1, 0.0, 9.0), (1, np.pi, 7.0)):
        z = first + generator.exponential(10)
        while z < 70:
            maker = car if generator.random() < 0.88 else bus
            x = lane * _lane(half)
            solids += placed(maker(generator), yaw + generator.normal(0, 0.02), np.array([x, 0.0, z + 4]))
            z += 12 + generator.exponential(16)
    return solids


def _end(generator: np.random.Generator) -> list[Solid]:
    """A house across the end of the street, or trees."""
    z = generator.uniform(90, 150)
    if generator.random() < 0.5:
        return placed(house(generator, 60.0, int(generator.integers(3, 7))), -np.pi / 2, np.array([30.0, 0.0, z]))
    solids = []
    for x in np.linspace(-28, 28, 12):
        solids += placed(tree(generator), 0.0, np.array([x, 0.0, min(z + generator.uniform(-5, 5), FAR)]))
    return solids


def _weather(generator: np.random.Generator) -> tuple[list[Light], Surroundings]:
    """Sun and sky, clear to overcast, morning to evening."""
    overcast = generator.random() ** 2.5
    height, around = np.deg2rad(generator.uniform(22, 65)), generator.uniform(0, 2 * np.pi)
    towards = np.array([np.cos(height) * np.cos(around), np.sin(height), np.cos(height) * np.sin(around)])
    warm = np.array([1.0, 0.93 - 0.25 * (height < 0.6), 0.85 - 0.4 * (height < 0.6)])
    sun = Light(towards * 1000, warm * 2.4 * (1 - 0.85 * overcast), np.full(3, 4.0 + 60 * overcast), distant=True)
    zenith = hue(generator, (0.57, 0.62), (0.45, 0.75), (0.6, 0.9))
    grey = np.full(3, generator.uniform(0.55, 0.8))
    zenith, horizon = zenith + (grey - zenith) * overcast, np.array([0.75, 0.82, 0.9]) + (grey - 0.8) * overcast
    cover, offset = generator.uniform(0.2, 0.65), generator.uniform(0, 100, 2)

    def sky(rays: Array) -> Array:
        up = np.maximum(rays[1], 0.0)
        color = mixed(horizon, zenith, np.sqrt(up))
        flat = rays / np.maximum(up + 0.12, 0.05)
        amount = np.clip((clouds(flat[0] * 1.2 + offset[0], flat[2] * 1.2 + offset[1], 4) - 1 + cover) * 3.5, 0, 1)
        return mixed(color, np.full(3, 1.0 - 0.3 * overcast), amount * np.clip(up * 8, 0, 1))

    level = 0.5 + 0.35 * overcast
    haze = generator.uniform(180, 900)
    above = (zenith + 0.4) * level
    return [sun], Surroundings(above, np.full(3, 0.22) * level, reach=2.0, sky=sky, haze=haze, haze_color=horizon)
