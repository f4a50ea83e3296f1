"""Blocks of pixels that see points close to each other: what cannot matter to a block need not be tried for its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["Tiles", "tiled"]

_EDGE = 8


@dataclass(frozen=True)
class Tiles:
    """Blocks of 8×8 pixels, and a sphere around the points that each of them sees.

    Attributes:
        pixels: ``[T, 64]``, flat indices; at the edge of the image some occur twice, which does no harm.
        centre: ``[3, T]``.
        radius: ``[T]``; negative where a block sees nothing.
    """

    pixels: Array
    centre: Array
    radius: Array


def tiled(points: Array, hit: Array, height: int, width: int) -> Tiles:
    """Divides an image.

    Args:
        points: ``[3, H·W]``, what the pixels see.
        hit: ``[H·W]``, whether they see anything.
        height: H.
        width: W.
    """
    down, right = -(-height // _EDGE), -(-width // _EDGE)
    rows = np.minimum(np.arange(down * _EDGE), height - 1).reshape(down, 1, _EDGE, 1)
    columns = np.minimum(np.arange(right * _EDGE), width - 1).reshape(1, right, 1, _EDGE)
    pixels = (rows * width + columns).reshape(down * right, _EDGE * _EDGE)
    empty = ~hit[pixels]
    gathered = points[:, pixels]
    low = np.where(empty, np.inf, gathered).min(2)
    high = np.where(empty, -np.inf, gathered).max(2)
    seen = ~empty.all(1)
    low, high = np.where(seen, low, 0), np.where(seen, high, 0)
    radius = np.where(seen, np.sqrt(np.square(high - low).sum(0)) / 2, -np.inf)
    return Tiles(pixels, (low + high) / 2, radius)
