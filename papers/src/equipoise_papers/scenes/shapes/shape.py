"""What every shape can do."""

from __future__ import annotations

from typing import Protocol

from equipoise_papers.scenes.arrays import Array

__all__ = ["Shape"]


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
