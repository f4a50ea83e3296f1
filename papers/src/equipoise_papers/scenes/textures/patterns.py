"""Patterns of surfaces, and the smooth noise that roughens them."""

from __future__ import annotations

from functools import cache

import numpy as np

from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.solid import Texture
from equipoise_papers.scenes.textures.colors import hue, mixed, shade

__all__ = [
    "checks",
    "clouds",
    "grain",
    "leaves",
    "noise",
    "noise3",
    "on_face",
    "plain",
    "planks",
    "spines",
    "stripes",
    "tiles",
    "weave",
]

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


def on_face(points: Array, normals: Array) -> tuple[Array, Array]:
    """Coordinates ``u``, ``v`` along the face that a point lies on: (x, y) in front, (z, y) at a side, (x, z) on top."""
    side = np.abs(normals[0]) > 0.7
    top = np.abs(normals[1]) > 0.7
    return np.where(side, points[2], points[0]), np.where(top, points[2], points[1])


def fading(pixel: Array, detail: float) -> Array:
    """``[N]``: 1 where a pixel is much smaller than the detail (metres), towards 0 where it is larger."""
    faded: Array = np.exp(-np.square(pixel / detail).astype(np.float32))
    return faded


def plain(color: Array) -> Texture:
    """One color."""

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        return shade(color, np.ones(points.shape[1], np.float32))

    return texture


def grain(generator: np.random.Generator, color: Array, *, size: float = 0.05, depth: float = 0.15) -> Texture:
    """One color with soft spots, ``size`` metres wide and ``depth`` deep: plaster, stone, cloth from afar."""
    offset = generator.uniform(0, 64, (3, 1))

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        spots = noise3(points / size + offset) - 0.5
        return shade(color, 1 + 2 * depth * spots * fading(pixel, size))

    return texture


def planks(
    generator: np.random.Generator,
    color: Array,
    *,
    width: float = 0.12,
    length: float = 1.2,
    along: int = 0,
    seams: float = 0.55,
) -> Texture:
    """Boards of wood with grain, each of a tone of its own; ``along`` is the axis that they run along: 0, 1 or 2."""
    offset = generator.uniform(0, 64, 2)
    across = {0: (2, 1), 1: (0, 2), 2: (0, 1)}[along]

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        length_wise = points[along]
        # On a face across which the first choice does not vary, the second one does.
        flat = np.abs(normals[across[0]]) > 0.7
        width_wise = np.where(flat, points[across[1]], points[across[0]])
        row = np.floor(width_wise / width)
        shifted = length_wise / length + 0.37 * row
        board = np.floor(shifted)
        tone = noise(row * 3.7 + offset[0], board * 5.3 + offset[1])
        veins = noise(width_wise / 0.012 + 9 * tone + offset[1], length_wise / 0.35 + 40 * tone)
        value = 0.8 + 0.35 * (tone - 0.5) + 0.3 * (veins - 0.5) * fading(pixel, 0.02)
        edge = np.minimum(width_wise / width - row, (shifted - board) * length / width)
        seam = np.clip(1 - edge * width / np.maximum(0.004, pixel), 0, 1) * np.clip(0.008 / pixel, 0, 1)
        return shade(color, value * (1 - seams * seam))

    return texture


def tiles(generator: np.random.Generator, color: Array, joint: Array, *, size: float = 0.3) -> Texture:
    """Square tiles with joints, each tile of a slightly different tone."""
    offset = generator.uniform(0, 64, 2)

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        u, v = (part / size for part in on_face(points, normals))
        i, j = np.floor(u), np.floor(v)
        tone = 0.9 + 0.25 * (noise(i * 7.3 + offset[0], j * 3.1 + offset[1]) - 0.5)
        edge = np.minimum(np.minimum(u - i, i + 1 - u), np.minimum(v - j, j + 1 - v)) * size
        share = np.clip(1.2 - edge / np.maximum(0.004, pixel), 0, 1) * np.clip(0.01 / pixel, 0, 1)
        return mixed(shade(color, tone), joint, share)

    return texture


def checks(first: Array, second: Array, *, size: float = 0.1) -> Texture:
    """Squares of two colors."""

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        u, v = on_face(points, normals)
        odd = (np.floor(u / size) + np.floor(v / size)) % 2
        return mixed(first, second, 0.5 + (odd - 0.5) * fading(pixel, size))

    return texture


def stripes(first: Array, second: Array, *, size: float = 0.06, axis: int = 0) -> Texture:
    """Stripes of two colors, side by side along an axis."""

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        odd = np.floor(points[axis] / size) % 2
        return mixed(first, second, 0.5 + (odd - 0.5) * fading(pixel, size))

    return texture


def weave(generator: np.random.Generator, color: Array, *, depth: float = 0.12) -> Texture:
    """Cloth: soft folds and a fine weave."""
    offset = generator.uniform(0, 64, (3, 1))

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        folds = noise3(points / 0.22 + offset) - 0.5
        threads = noise3(points / 0.012 + offset) - 0.5
        return shade(color, 1 + depth * (2 * folds + 1.5 * threads * fading(pixel, 0.015)))

    return texture


def spines(generator: np.random.Generator, width: float, *, axis: int = 0) -> Texture:
    """The backs of books standing side by side along an axis, ``width`` metres of them."""
    edges = np.cumsum(generator.uniform(0.016, 0.05, int(width / 0.016) + 2)) - width / 2
    colors = np.stack([hue(generator, saturations=(0.1, 0.8), values=(0.2, 0.9)) for _ in edges], axis=1)
    bands = generator.uniform(-0.1, 0.1, len(edges))

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        book = np.minimum(np.searchsorted(edges, points[axis]), len(edges) - 1)
        gap = np.abs(points[axis] - edges[np.maximum(book - 1, 0)])
        value = np.where((gap < 0.003) & (pixel < 0.006), 0.35, 1.0)
        title = np.abs(points[1] - bands[book]) < 0.02
        return shade_each(colors[:, book], np.where(title, 1.5, 1.0) * value)

    return texture


def shade_each(colors: Array, factor: Array) -> Array:
    """Colors ``[3, N]`` made darker or brighter by ``[N]``, cut at 1."""
    return np.minimum(colors.astype(np.float32) * factor.astype(np.float32), 1)


def leaves(generator: np.random.Generator, color: Array, *, size: float = 0.25) -> Texture:
    """Foliage: clumps of light and dark green."""
    offset = generator.uniform(0, 64, (3, 1))

    def texture(points: Array, normals: Array, pixel: Array) -> Array:
        clumps = noise3(points / size + offset)
        fine = noise3(points / (size / 4) + offset)
        value = 0.35 + 0.9 * clumps + 0.6 * (fine - 0.5) * fading(pixel, size / 4)
        return shade(color, np.maximum(value, 0.08))

    return texture
