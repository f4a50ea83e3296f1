"""What throws light (lamps, windows, the sun), what comes from everywhere, and what a renderer needs of a scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Solid

__all__ = ["Light", "Surroundings", "World"]


@dataclass(frozen=True)
class Light:
    """A small area that shines: a lamp (light falls off with the square of the distance) or, far away, the sun.

    Args:
        position: ``[3]``, metres; of the sun, any point in its direction.
        color: ``[3]``, irradiance at one metre; of the sun, everywhere.
        size: ``[3]``, half the edges of the box that its points are drawn from; makes shadows soft.
        distant: whether it is the sun.
        facing: ``[3]``, for a light that shines to one side only (a window), the direction of that side.
    """

    position: Array
    color: Array
    size: Array = field(default_factory=lambda: np.zeros(3))
    distant: bool = False
    facing: Array | None = None


@dataclass(frozen=True)
class Surroundings:
    """Light without a place, and what is seen where nothing is.

    Args:
        above: ``[3]``, color of the light that comes from above.
        below: ``[3]``, and from below.
        reach: metres within which other solids keep it away, which darkens corners.
        sky: directions ``[3, N]`` of the world → colors ``[3, N]``.
        haze: metres after which about two thirds of a color have turned into that of the haze; 0 for clear air.
        haze_color: ``[3]``.
    """

    above: Array
    below: Array
    reach: float = 0.8
    sky: Callable[[Array], Array] | None = None
    haze: float = 0.0
    haze_color: Array = field(default_factory=lambda: np.ones(3))


@dataclass(frozen=True)
class World:
    """A world and a view of it.

    Attributes:
        solids: everything in it.
        camera: where it is seen from.
        lights: lamps, windows, the sun.
        around: light without a place.
    """

    solids: list[Solid]
    camera: Camera
    lights: list[Light]
    around: Surroundings
