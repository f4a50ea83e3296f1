"""What throws light: lamps, windows, the sun; and what comes from everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["Light", "Surroundings"]


@dataclass(frozen=True)
class Light:
    """A small area that shines: a lamp (light falls off with the square of the distance) or, far away, the sun.

    Args:
        position: ``[3]``, metres; of the sun, any point in its direction.
        colour: ``[3]``, irradiance at one metre; of the sun, everywhere.
        size: ``[3]``, half the edges of the box that its points are drawn from; makes shadows soft.
        distant: whether it is the sun.
        facing: ``[3]``, for a light that shines to one side only (a window), the direction of that side.
    """

    position: Array
    colour: Array
    size: Array = field(default_factory=lambda: np.zeros(3))
    distant: bool = False
    facing: Array | None = None


@dataclass(frozen=True)
class Surroundings:
    """Light without a place, and what is seen where nothing is.

    Args:
        above: ``[3]``, colour of the light that comes from above.
        below: ``[3]``, and from below.
        reach: metres within which other solids keep it away, which darkens corners.
        sky: directions ``[3, N]`` of the world → colours ``[3, N]``.
        haze: metres after which about two thirds of a colour have turned into that of the haze; 0 for clear air.
        haze_colour: ``[3]``.
    """

    above: Array
    below: Array
    reach: float = 0.8
    sky: Callable[[Array], Array] | None = None
    haze: float = 0.0
    haze_colour: Array = field(default_factory=lambda: np.ones(3))
