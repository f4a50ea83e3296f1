"""Random fields with some structure, so that there is something to learn from a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["patches"]


def patches(rng: np.random.Generator, size: tuple[int, int], edge: int = 8) -> NDArray[np.float64]:
    """A field ``[H, W]`` in [0, 1) that is constant on squares of ``edge`` pixels."""
    height, width = size
    coarse = rng.random((-(-height // edge), -(-width // edge)))
    return np.repeat(np.repeat(coarse, edge, axis=0), edge, axis=1)[:height, :width]
