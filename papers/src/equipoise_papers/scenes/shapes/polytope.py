"""A convex body with flat faces: wedges, roofs, the cabin of a car."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["Polytope", "prism"]


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
