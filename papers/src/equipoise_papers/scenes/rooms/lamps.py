"""Lamps as tall as a person, and the light of any lamp."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.rendering import Light
from equipoise_papers.scenes.rooms.small import lampshade
from equipoise_papers.scenes.rooms.thing import Thing
from equipoise_papers.scenes.textures import hue

__all__ = ["bulb", "floor_lamp"]


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
