"""A sphere, stretched along the axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.arrays import Array, dot

__all__ = ["Ellipsoid"]


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
        # The distance from the centre to the line, rather than b² − ac, which cancels for small shapes far away.
        nearest = start + middle * along
        half = (1 - dot(nearest, nearest)) / square
        reach = np.sqrt(np.maximum(half, 0))
        return middle - reach, np.where(half > 0, middle + reach, middle - reach)

    def normal(self, point: Array) -> tuple[Array, Array]:
        """The gradient of the equation; there is one face."""
        gradient = point / np.square(self.extent)[:, None]
        return gradient / np.sqrt(dot(gradient, gradient)), np.zeros(point.shape[1], dtype=np.intp)
