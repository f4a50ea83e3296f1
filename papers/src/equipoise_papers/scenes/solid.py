"""A shape somewhere in the world, with a label and a material."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from equipoise_papers.scenes.arrays import Array
from equipoise_papers.scenes.material import Material
from equipoise_papers.scenes.shapes import Shape

__all__ = ["Solid", "placed", "turn"]

_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3))).T


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """``[3, 3]``: turns by ``roll`` about z, then ``pitch`` about x, then ``yaw`` about y (upwards); radians.

    Example:
        >>> (turn(np.pi / 2) @ [0, 0, 1]).round(6).tolist()  # what looked along z looks along x
        [1.0, 0.0, 0.0]
    """
    c, s = np.cos(yaw), np.sin(yaw)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(roll), np.sin(roll)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned: Array = about_y @ about_x @ about_z
    return turned


@dataclass(frozen=True)
class Solid:
    """A shape with a place.

    Args:
        shape: in its own frame.
        centre: ``[3]``, where the shape's origin is in the world, metres.
        axes: ``[3, 3]``, rows are the shape's axes in the world.
        label: its class.
        material: how it looks.
        anchor: ``[3]``, origin of the texture in the shape's frame. Parts of one surface share a point of the world.
        casts: whether it throws shadows; what encloses all lights need not be asked.
    """

    shape: Shape
    centre: Array
    axes: Array
    label: int
    material: Material
    anchor: Array | None = None
    casts: bool = True

    @property
    def corners(self) -> Array:
        """``[3, 8]``: of a box around it, in the world."""
        corners: Array = self.centre[:, None] + self.axes.T @ (self.shape.extent[:, None] * _CORNERS)
        return corners

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """As of the shape, with lines ``[3, 1]`` or ``[3, N]`` of the world."""
        axes = self.axes.astype(direction.dtype)
        start = axes @ (origin - self.centre.astype(direction.dtype)[:, None])
        return self.shape.span(start, axes @ direction)

    def local(self, points: Array) -> Array:
        """Points ``[3, N]`` of the world in the shape's frame."""
        inside: Array = self.axes @ (points - self.centre[:, None])
        return inside


def placed(solids: Iterable[Solid], yaw: float, position: Array) -> list[Solid]:
    """Moves a thing made of several solids from its own frame into the world: turned about the vertical, then shifted."""
    turned = turn(yaw)
    return [replace(solid, centre=turned @ solid.centre + position, axes=solid.axes @ turned.T) for solid in solids]
