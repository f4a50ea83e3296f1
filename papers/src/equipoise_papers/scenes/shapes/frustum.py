"""A round body that may get narrower upwards: cylinder, cone and what is between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["Frustum"]


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
        centre = -half_b / a
        first, second = centre - reach, centre + reach
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
