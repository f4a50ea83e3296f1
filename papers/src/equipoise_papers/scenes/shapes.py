"""Convex shapes in their own frame: where a line enters and leaves them, and the normal of a point on their surface.

Points, directions and colors are ``[3, N]``: the components lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Cuboid", "Ellipsoid", "Frustum", "Polytope", "Shape", "dot", "prism"]

Array: TypeAlias = NDArray[Any]


def dot(a: Array, b: Array) -> Array:
    """Inner products of the columns of two ``[3, N]`` arrays, ``[N]``."""
    products: Array = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return np.asarray(products)


class Shape(Protocol):
    """A convex body around the origin of its own frame.

    Attributes:
        extent: ``[3]``, half the edges of the smallest box around it, metres.
        radius: of a sphere around the origin that holds it, metres.
    """

    @property
    def extent(self) -> Array:
        """Half the edges of a box around it."""

    @property
    def radius(self) -> float:
        """Radius of a sphere around it."""

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """Where lines enter and leave.

        Args:
            origin: ``[3, 1]`` or ``[3, N]``.
            direction: ``[3, N]``, of any length.

        Returns:
            ``enter`` and ``leave``, ``[N]`` each: the line is inside for parameters between them; it misses the shape
            where ``enter >= leave``.
        """

    def normal(self, point: Array) -> tuple[Array, Array]:
        """Outward unit normals ``[3, N]`` at points ``[3, N]`` of the surface, and each one's face, ``[N]`` integers."""


@dataclass(frozen=True)
class Cuboid:
    """The points with |x| ≤ a, |y| ≤ b, |z| ≤ c.

    Args:
        extent: ``[3]``: a, b, c, metres.
    """

    extent: Array

    @property
    def radius(self) -> float:
        """Half the diagonal."""
        return float(np.linalg.norm(self.extent))

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """The three slabs' spans, cut with each other."""
        half = self.extent.astype(direction.dtype)[:, None]
        # A line along a slab is inside of it always or never; a tiny slope says so without a case of its own.
        slope = 1 / np.where(direction == 0, direction.dtype.type(1e-12), direction)
        middle = -origin * slope
        reach = half * np.abs(slope)
        near, far = middle - reach, middle + reach
        return np.maximum(np.maximum(near[0], near[1]), near[2]), np.minimum(np.minimum(far[0], far[1]), far[2])

    def normal(self, point: Array) -> tuple[Array, Array]:
        """Of the face that is closest."""
        axis = np.abs(self.extent[:, None] - np.abs(point)).argmin(0)
        columns = np.arange(point.shape[1])
        sign = np.sign(point[axis, columns])
        normal = np.zeros_like(point)
        normal[axis, columns] = sign
        return normal, 2 * axis + (sign > 0)


@dataclass(frozen=True)
class Ellipsoid:
    """The points with (x/a)² + (y/b)² + (z/c)² ≤ 1.

    Args:
        extent: ``[3]``: a, b, c, metres.
    """

    extent: Array

    @property
    def radius(self) -> float:
        """The longest half axis."""
        return float(self.extent.max())

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """Roots of the quadratic equation; in coordinates in which the ellipsoid is the unit sphere."""
        scale = (1 / self.extent).astype(direction.dtype)[:, None]
        start, along = origin * scale, direction * scale
        square = dot(along, along)
        middle = -dot(start, along) / square
        # The distance from the center to the line, rather than b² − ac, which cancels for small shapes far away.
        nearest = start + middle * along
        half = (1 - dot(nearest, nearest)) / square
        reach = np.sqrt(np.maximum(half, 0))
        return middle - reach, np.where(half > 0, middle + reach, middle - reach)

    def normal(self, point: Array) -> tuple[Array, Array]:
        """The gradient of the equation; there is one face."""
        gradient = point / np.square(self.extent)[:, None]
        return gradient / np.sqrt(dot(gradient, gradient)), np.zeros(point.shape[1], dtype=np.intp)


@dataclass(frozen=True)
class Frustum:
    """The points with |y| ≤ h and x² + z² ≤ r(y)², r linear from ``bottom`` at −h to ``top`` at h.

    Args:
        bottom: radius of the lower end, metres.
        top: radius of the upper end; 0 for a cone, ``bottom`` for a cylinder.
        half: h, half the height, metres.
    """

    bottom: float
    top: float
    half: float

    @property
    def extent(self) -> Array:
        """Of the box around it."""
        widest = max(self.bottom, self.top)
        return np.array([widest, self.half, widest])

    @property
    def radius(self) -> float:
        """Of the sphere around it."""
        return float(np.hypot(max(self.bottom, self.top), self.half))

    def _profile(self) -> tuple[float, float]:
        """r(y) = middle + slope·y."""
        return (self.bottom + self.top) / 2, (self.top - self.bottom) / (2 * self.half)

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """The span in the cone, cut with the one between the two planes."""
        kind = direction.dtype.type
        middle, slope = (kind(number) for number in self._profile())
        radius = middle + slope * origin[1]
        a = np.square(direction[0]) + np.square(direction[2]) - np.square(slope * direction[1])
        a = np.where(np.abs(a) < 1e-12, kind(1e-12), a)
        half_b = origin[0] * direction[0] + origin[2] * direction[2] - slope * radius * direction[1]
        c = np.square(origin[0]) + np.square(origin[2]) - np.square(radius)
        root = np.square(half_b) - a * c
        reach = np.sqrt(np.maximum(root, 0)) / np.abs(a)
        center = -half_b / a
        first, second = center - reach, center + reach
        fall = np.where(direction[1] == 0, kind(1e-12), direction[1])
        low, high = (-kind(self.half) - origin[1]) / fall, (kind(self.half) - origin[1]) / fall
        low, high = np.minimum(low, high), np.maximum(low, high)
        # A line steeper than the side (a < 0) is inside before its first root and behind its second; the body is in the
        # half of the double cone in which the radius is positive, which is where a line goes along which it grows.
        steep = a < 0
        widening = slope * direction[1] > 0
        enter = np.where(steep, np.where(widening, np.maximum(low, second), low), np.maximum(low, first))
        leave = np.where(steep, np.where(widening, high, np.minimum(high, first)), np.minimum(high, second))
        return np.where(steep | (root > 0), enter, leave), leave

    def normal(self, point: Array) -> tuple[Array, Array]:
        """Of the closest of its three faces: lower end, upper end, side."""
        middle, slope = self._profile()
        around = np.hypot(point[0], point[2])
        side = np.abs(around - (middle + slope * point[1])) / np.hypot(1, slope)
        face = np.where(side < np.abs(self.half - np.abs(point[1])), 2, np.where(point[1] > 0, 1, 0))
        scale = np.where(face == 2, 1 / (np.hypot(1, slope) * np.maximum(around, 1e-12)), 0)
        upwards = np.where(face == 2, -slope / np.hypot(1, slope), np.where(face == 1, 1.0, -1.0))
        return np.stack([point[0] * scale, upwards, point[2] * scale]), face


@dataclass(frozen=True)
class Polytope:
    """The points with ⟨nᵢ, x⟩ ≤ dᵢ for every face i.

    Args:
        normals: ``[F, 3]``, unit length, outwards.
        offsets: ``[F]``, distances of the faces from the origin, metres.
        extent: ``[3]``, half the edges of a box around it.
    """

    normals: Array
    offsets: Array
    extent: Array

    @property
    def radius(self) -> float:
        """Half the diagonal of the box around it."""
        return float(np.linalg.norm(self.extent))

    def span(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """The last face entered and the first one left."""
        kind = direction.dtype
        normals = self.normals.astype(kind)
        slope = normals @ direction
        slope[slope == 0] = 1e-12
        when = (self.offsets.astype(kind)[:, None] - normals @ origin) / slope
        inwards = slope < 0
        return np.where(inwards, when, -np.inf).max(0), np.where(inwards, np.inf, when).min(0)

    def normal(self, point: Array) -> tuple[Array, Array]:
        """Of the face that is closest."""
        face = np.abs(self.offsets[:, None] - self.normals @ point).argmin(0)
        return self.normals.T[:, face], face


def prism(outline: Sequence[tuple[float, float]], half_width: float) -> tuple[Polytope, Array]:
    """A convex outline in the (z, y) plane, drawn out along x to both sides.

    Args:
        outline: its corners as (z, y), in either sense of rotation, metres.
        half_width: how far it reaches to each side, metres.

    Returns:
        The shape, and the middle ``[3]`` of the box around it: the shape's own origin lies there.

    Example:
        >>> shape, middle = prism([(0, 0), (2, 0), (1, 1)], half_width=3)  # a roof
        >>> middle.tolist(), shape.extent.tolist()
        ([0.0, 0.5, 1.0], [3.0, 0.5, 1.0])
    """
    corners = np.asarray(outline, float)
    middle = (corners.min(0) + corners.max(0)) / 2
    corners = corners - middle
    edges = np.roll(corners, -1, axis=0) - corners
    outward = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    offsets = (outward * corners).sum(1)
    inside = corners.mean(0)
    flipped = np.where(outward @ inside > offsets, -1.0, 1.0)
    normals = np.zeros((len(corners) + 2, 3))
    normals[:-2, 2], normals[:-2, 1] = (outward * flipped[:, None]).T
    normals[-2:, 0] = -1, 1
    z, y = (corners.max(0) - corners.min(0)) / 2
    shape = Polytope(normals, np.append(offsets * flipped, [half_width, half_width]), np.array([half_width, y, z]))
    return shape, np.array([0.0, middle[1], middle[0]])
