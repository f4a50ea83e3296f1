"""A box with its edges along the axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["Box"]


@dataclass(frozen=True)
class Box:
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
