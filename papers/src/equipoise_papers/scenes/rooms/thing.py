"""A thing in a room before it has a place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from equipoise_papers.scenes.rendering import Light
from equipoise_papers.scenes.solid import Solid

__all__ = ["Thing"]


@dataclass
class Thing:
    """Solids in a frame of their own: x along the wall behind it, y upwards, z into the room; the origin lies on the floor
    in the middle of its back.

    Args:
        solids: what it is made of.
        width: of the floor that it needs, along x, metres.
        depth: and along z.
        lights: lamps that belong to it.
        room_in_front: metres that should stay free before it.
    """

    solids: list[Solid]
    width: float
    depth: float
    lights: list[Light] = field(default_factory=list)
    room_in_front: float = 0.3

    def add(self, other: list[Solid], at: tuple[float, float, float]) -> None:
        """Puts other solids on it, shifted."""
        from dataclasses import replace

        self.solids += [replace(solid, centre=solid.centre + np.asarray(at)) for solid in other]
