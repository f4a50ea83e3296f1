"""Smooth noise: values on the integer lattice, interpolated between."""

from __future__ import annotations

from functools import cache

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["clouds", "noise", "noise3"]

_EDGE = 256  # of the plane's lattice
_EDGE3 = 64  # of the space's lattice


@cache
def _lattice(edge: int, dimensions: int) -> Array:
    # Part of the definition of the textures; what differs from scene to scene is where in the lattice they lie.
    return np.random.default_rng(7).random((edge,) * dimensions, dtype=np.float32).ravel()


def _cell(x: Array) -> tuple[Array, Array]:
    low = np.floor(x)
    part = (x - low).astype(np.float32)
    return low.astype(np.int64), part * part * (3 - 2 * part)


def noise(x: Array, y: Array) -> Array:
    """Noise in the plane with features of about one unit.

    Args:
        x: ``[N]``.
        y: ``[N]``.

    Returns:
        ``[N]`` float32, 0 to 1.
    """
    table = _lattice(_EDGE, 2)
    (i, u), (j, v) = _cell(x), _cell(y)
    i0, i1, j0, j1 = (i % _EDGE) * _EDGE, ((i + 1) % _EDGE) * _EDGE, j % _EDGE, (j + 1) % _EDGE
    low = table[i0 + j0] * (1 - u) + table[i1 + j0] * u
    high = table[i0 + j1] * (1 - u) + table[i1 + j1] * u
    mixed: Array = low * (1 - v) + high * v
    return mixed


def noise3(points: Array) -> Array:
    """Noise in space with features of about one unit: ``[3, N]`` → ``[N]`` float32, 0 to 1."""
    table = _lattice(_EDGE3, 3)
    cells, parts = _cell(points)
    low = (cells % _EDGE3) * np.array([[_EDGE3 * _EDGE3], [_EDGE3], [1]])
    high = ((cells + 1) % _EDGE3) * np.array([[_EDGE3 * _EDGE3], [_EDGE3], [1]])
    u, v, w = parts

    def along(j: Array, k: Array) -> Array:
        mixed: Array = table[low[0] + j + k] * (1 - u) + table[high[0] + j + k] * u
        return mixed

    front = along(low[1], low[2]) * (1 - v) + along(high[1], low[2]) * v
    back = along(low[1], high[2]) * (1 - v) + along(high[1], high[2]) * v
    mixed: Array = front * (1 - w) + back * w
    return mixed


def clouds(x: Array, y: Array, octaves: int = 3) -> Array:
    """Noise of several scales on top of each other, each half as large and half as strong; ``[N]``, 0 to 1."""
    total = np.zeros(x.shape, np.float32)
    for octave in range(octaves):
        # The odd shift keeps the octaves' lattice points, where noise is flat, from lying on each other.
        total += noise(x * 2**octave + 17.3 * octave, y * 2**octave + 5.1 * octave) / 2**octave
    return total / np.float32(2 - 2.0 ** (1 - octaves))
