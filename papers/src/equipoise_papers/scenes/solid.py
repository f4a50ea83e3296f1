"""Solids: a shape somewhere in the world with a label and a material, and short ways to write solids down."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from equipoise_papers.scenes.shapes import Array, Cuboid, Ellipsoid, Frustum, Shape, prism

__all__ = ["Material", "Solid", "Texture", "ball", "block", "limb", "placed", "rod", "turn", "wedge"]


class Texture(Protocol):
    """A color for every point of a surface."""

    def __call__(self, points: Array, normals: Array, pixel: Array) -> Array:
        """Computes the colors.

        Args:
            points: ``[3, N]`` in the solid's frame, metres.
            normals: ``[3, N]`` in the solid's frame.
            pixel: ``[N]``, edge of what one pixel covers there, metres; detail below it should fade.

        Returns:
            ``[3, N]``, linear red, green, blue, 0 to 1.
        """


@dataclass(frozen=True)
class Material:
    """A texture and how it meets light.

    Args:
        texture: the share of light that is scattered, by color.
        gloss: height of the highlight, 0 (matt) to about 0.5.
        glow: light of its own: this times the texture's color.
        sheen: exponent of the highlight; higher is sharper.
    """

    texture: Texture
    gloss: float = 0.0
    glow: float = 0.0
    sheen: float = 30.0


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
        center: ``[3]``, where the shape's origin is in the world, metres.
        axes: ``[3, 3]``, rows are the shape's axes in the world.
        label: its class.
        material: how it looks.
        anchor: ``[3]``, origin of the texture in the shape's frame. Parts of one surface share a point of the world.
        casts: whether it throws shadows; what encloses all lights need not be asked.
    """

    shape: Shape
    center: Array
    axes: Array
    label: int
    material: Material
    anchor: Array | None = None
    casts: bool = True

    @property
    def corners(self) -> Array:
        """``[3, 8]``: of a box around it, in the world."""
        corners: Array = self.center[:, None] + self.axes.T @ (self.shape.extent[:, None] * _CORNERS)
        return corners

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """As of the shape, with lines ``[3, 1]`` or ``[3, N]`` of the world."""
        axes = self.axes.astype(direction.dtype)
        start = axes @ (origin - self.center.astype(direction.dtype)[:, None])
        return self.shape.span(start, axes @ direction)

    def local(self, points: Array) -> Array:
        """Points ``[3, N]`` of the world in the shape's frame."""
        inside: Array = self.axes @ (points - self.center[:, None])
        return inside


def placed(solids: Iterable[Solid], yaw: float, position: Array) -> list[Solid]:
    """Moves a thing made of several solids from its own frame into the world: turned about the vertical, then shifted."""
    turned = turn(yaw)
    return [replace(solid, center=turned @ solid.center + position, axes=solid.axes @ turned.T) for solid in solids]


Point: TypeAlias = Sequence[float] | Array
_UPRIGHT = np.eye(3)


def block(
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    label: int,
    material: Material,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
) -> Solid:
    """A box from its lower to its upper bounds, metres; turned about its middle."""
    bounds = np.array([x, y, z], dtype=float)
    axes = turn(yaw, pitch).T if yaw or pitch else _UPRIGHT
    return Solid(Cuboid((bounds[:, 1] - bounds[:, 0]) / 2), bounds.mean(1), axes, int(label), material)


def rod(
    x: float, z: float, y: tuple[float, float], radius: float, label: int, material: Material, top: float | None = None
) -> Solid:
    """An upright round thing; ``top`` is the radius of its upper end if that differs."""
    shape = Frustum(radius, radius if top is None else top, (y[1] - y[0]) / 2)
    return Solid(shape, np.array([x, (y[0] + y[1]) / 2, z]), _UPRIGHT, int(label), material)


def limb(start: Point, end: Point, radius: float, label: int, material: Material, thin: float = 1.0) -> Solid:
    """A round thing from one point to another; its radius ends at ``thin`` times what it begins with."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    along = last - first
    length = float(np.linalg.norm(along))
    along /= length
    aside = np.cross(along, [0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [1.0, 0.0, 0.0])
    aside /= np.linalg.norm(aside)
    axes = np.stack([aside, along, np.cross(aside, along)])
    return Solid(Frustum(radius, radius * thin, length / 2), (first + last) / 2, axes, int(label), material)


def ball(center: Point, radii: Point | float, label: int, material: Material) -> Solid:
    """A sphere, or an ellipsoid with three radii."""
    extent = np.broadcast_to(np.asarray(radii, float), (3,)).copy()
    return Solid(Ellipsoid(extent), np.asarray(center, float), _UPRIGHT, int(label), material)


def wedge(outline: Sequence[tuple[float, float]], x: tuple[float, float], label: int, material: Material) -> Solid:
    """A convex outline in the (z, y) plane, drawn out along x."""
    shape, middle = prism(outline, (x[1] - x[0]) / 2)
    return Solid(shape, middle + np.array([(x[0] + x[1]) / 2, 0.0, 0.0]), _UPRIGHT, int(label), material)
