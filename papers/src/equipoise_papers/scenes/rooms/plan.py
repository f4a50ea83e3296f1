"""The floor plan: what stands where, so that nothing stands in anything else, and where there is room for a camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.rooms.things import Thing
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Solid, turn

__all__ = ["Plan", "Spot"]


@dataclass(frozen=True)
class Spot:
    """A place on the floor and the direction in which a thing looks there.

    Attributes:
        position: ``[3]``, metres.
        yaw: radians; 0 looks along +z.
    """

    position: Array
    yaw: float

    @property
    def turned(self) -> Array:
        """``[3, 3]``: from a thing's frame to the room's."""
        return turn(self.yaw)

    def moved(self, right: float, forward: float) -> Spot:
        """The spot that much further along the thing's x and z axes."""
        return Spot(self.position + self.turned @ np.array([right, 0.0, forward]), self.yaw)


class Plan:
    """Floor and walls of a room from (0, 0) to (width, length).

    Args:
        size: ``[3]``: width, height, length, metres.
    """

    def __init__(self, size: Array) -> None:
        self.size = size
        self._floor: list[Array] = []  # rectangles (x0, z0, x1, z1)
        self._walls: list[tuple[int, float, float, float]] = []  # wall, from, to, height of what is there
        self._blocked: list[Array] = []

    def _wall(self, number: int, along: float) -> Spot:
        """A point of one of the walls, ``along`` metres from its left end as seen from inside."""
        width, _, length = self.size
        return (
            Spot(np.array([along, 0.0, 0.0]), 0.0),
            Spot(np.array([0.0, 0.0, length - along]), np.pi / 2),
            Spot(np.array([width - along, 0.0, length]), np.pi),
            Spot(np.array([width, 0.0, along]), -np.pi / 2),
        )[number]

    def _long(self, number: int) -> float:
        return float(self.size[0] if number % 2 == 0 else self.size[2])

    def _rectangle(self, spot: Spot, width: float, depth: float) -> Array:
        corners = [spot.moved(x, z).position[[0, 2]] for x in (-width / 2, width / 2) for z in (0.0, depth)]
        return np.concatenate([np.min(corners, axis=0), np.max(corners, axis=0)])

    def take(self, spot: Spot, width: float, depth: float, front: float = 0.0) -> bool:
        """Claims a rectangle of floor whose back's middle is at the spot; false if some of it is taken or outside."""
        wanted = self._rectangle(spot, width, depth + front)
        if (wanted[:2] < -1e-6).any() or (wanted[2:] > self.size[[0, 2]] + 1e-6).any():
            return False
        for taken in self._floor:
            if (wanted[:2] < taken[2:]).all() and (taken[:2] < wanted[2:]).all():
                return False
        self._floor.append(self._rectangle(spot, width, depth))
        return True

    def against_wall(self, generator: np.random.Generator, thing: Thing) -> Spot | None:
        """A free place for a thing with its back to a wall; ``None`` if none was found."""
        for _ in range(24):
            number = int(generator.integers(4))
            room = self._long(number) - thing.width
            if room < 0:
                continue
            along = thing.width / 2 + room * generator.random()
            spot = self._wall(number, along).moved(0.0, float(generator.choice([0.02, 0.05])))
            if self.take(spot, thing.width, thing.depth, thing.room_in_front):
                tall = max(float(solid.corners[1].max()) for solid in thing.solids)
                self._walls.append((number, along - thing.width / 2, along + thing.width / 2, tall))
                return spot
        return None

    def on_wall(self, generator: np.random.Generator, width: float, above: float) -> Spot | None:
        """A free part of a wall above a height; ``None`` if none was found."""
        for _ in range(24):
            number = int(generator.integers(4))
            room = self._long(number) - width
            if room < 0:
                continue
            along = width / 2 + room * generator.random()
            start, stop = along - width / 2, along + width / 2
            if all(number != other or stop < first or start > last or tall < above for other, first, last, tall in self._walls):
                self._walls.append((number, start, stop, float(self.size[1])))
                return self._wall(number, along)
        return None

    def free(self, generator: np.random.Generator, width: float) -> Spot | None:
        """A free square of floor anywhere; the spot is its middle, turned at random."""
        for _ in range(24):
            x, z = (generator.uniform(width / 2, edge - width / 2) for edge in self.size[[0, 2]])
            if self.take(Spot(np.array([x, 0.0, z - width / 2]), 0.0), width, width):
                return Spot(np.array([x, 0.0, z]), float(generator.uniform(-np.pi, np.pi)))
        return None

    def viewpoint(self, generator: np.random.Generator, solids: Sequence[Solid]) -> Camera:
        """Where a person with a camera stands: near a wall, away from all things, looking across the room."""
        boxes = [(corners.min(1), corners.max(1)) for corners in (solid.corners for solid in solids if solid.casts)]
        lows, highs = np.array([low for low, _ in boxes]), np.array([high for _, high in boxes])
        centers = np.array([(rectangle[:2] + rectangle[2:]) / 2 for rectangle in self._floor])
        best, best_score = None, -np.inf
        for _ in range(40):
            height = generator.uniform(1.15, 1.75)
            x, z = (generator.uniform(0.3, edge - 0.3) for edge in self.size[[0, 2]])
            position = np.array([x, height, z])
            gap = np.linalg.norm(np.maximum(np.maximum(lows - position, position - highs), 0), axis=1).min()
            # Look at where the furniture is, seen from here, a little below eye level.
            away = centers - position[[0, 2]]
            chosen = centers[generator.integers(len(centers))] * 0.6 + 0.4 * self.size[[0, 2]] / 2
            distance = np.linalg.norm(chosen - position[[0, 2]])
            target = np.array([chosen[0], height - distance * np.tan(generator.uniform(0.05, 0.3)), chosen[1]])
            sight = (target - position)[[0, 2]] / max(distance, 1e-6)
            ahead = away @ sight / np.maximum(np.linalg.norm(away, axis=1), 1e-6)
            seen = ((ahead > 0.8) & (np.linalg.norm(away, axis=1) > 1.2)).sum()
            score = 1.2 * seen + 0.8 * distance + 3 * min(gap, 0.6) - (100 if gap < 0.25 or distance < 0.8 else 0)
            if score > best_score:
                best_score = score
                view = float(np.deg2rad(generator.uniform(58, 76)))
                best = Camera.looking(position, target, view, float(np.deg2rad(generator.normal(0, 1.5))))
        assert best is not None
        return best
