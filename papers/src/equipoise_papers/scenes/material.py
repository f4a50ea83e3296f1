"""How a surface looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from equipoise_papers.scenes.arrays import Array

__all__ = ["Material", "Texture"]


class Texture(Protocol):
    """A colour for every point of a surface."""

    def __call__(self, points: Array, normals: Array, pixel: Array) -> Array:
        """Computes the colours.

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
        texture: the share of light that is scattered, by colour.
        gloss: height of the highlight, 0 (matt) to about 0.5.
        glow: light of its own: this times the texture's colour.
        sheen: exponent of the highlight; higher is sharper.
    """

    texture: Texture
    gloss: float = 0.0
    glow: float = 0.0
    sheen: float = 30.0
