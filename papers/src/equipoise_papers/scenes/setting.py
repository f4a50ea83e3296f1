"""What a renderer needs of a scene."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.rendering import Light, Surroundings
from equipoise_papers.scenes.solid import Solid

__all__ = ["Setting"]


@dataclass(frozen=True)
class Setting:
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
