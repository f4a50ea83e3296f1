"""Where a scene is seen from, and from light to the numbers of an image: lens, exposure, white balance, noise, gamma."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.shapes import Array

__all__ = ["Camera", "photograph"]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and the principal point in the middle of the image.

    Its own frame has x to the right, y upwards and z towards the viewer, so it looks along −z, and the (planar) depth of a
    point is −z. Normals are given in this frame: a surface that faces the camera has (0, 0, 1), a floor about (0, 1, 0).

    Args:
        position: ``[3]``, metres, in the world.
        axes: ``[3, 3]``, rows are the camera's x, y and z axes in the world.
        field_of_view: angle from the left to the right edge of the image, radians.
    """

    position: Array
    axes: Array
    field_of_view: float

    @classmethod
    def looking(cls, position: Array, target: Array, field_of_view: float, roll: float = 0.0) -> Camera:
        """A camera at one point that looks at another; the world's y is up.

        Args:
            position: ``[3]``, metres.
            target: ``[3]``, what is in the middle of the image.
            field_of_view: horizontal, radians.
            roll: turns the camera about its line of sight, radians.
        """
        back = np.asarray(position, float) - np.asarray(target, float)
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 1.0, 0.0], back)
        right /= np.linalg.norm(right)
        up = np.cross(back, right)
        cosine, sine = math.cos(roll), math.sin(roll)
        axes = np.stack([cosine * right + sine * up, cosine * up - sine * right, back])
        return cls(np.asarray(position, float), axes, field_of_view)

    def focal(self, width: int) -> float:
        """The focal length in pixels of an image of that width."""
        return width / 2 / math.tan(self.field_of_view / 2)

    def plane(self, height: int, width: int) -> Array:
        """``[3, H, W]``, in the camera's frame: the point at depth 1 that each pixel's center sees."""
        focal = self.focal(width)
        across = (np.arange(width) + 0.5 - width / 2) / focal
        upwards = (height / 2 - 0.5 - np.arange(height)) / focal
        x, y = np.broadcast_arrays(across[None, :], upwards[:, None])
        return np.stack([x, y, np.full((height, width), -1.0)])

    def rays(self, height: int, width: int) -> Array:
        """``[3, H, W]``, in the world: directions that advance the depth by 1, so that ray parameters *are* depths."""
        return (self.axes.T @ self.plane(height, width).reshape(3, -1)).reshape(3, height, width)

    def points(self, depth: Array) -> Array:
        """Back-projection: from depths ``[H, W]`` to points ``[3, H, W]`` in the camera's frame."""
        return self.plane(*depth.shape) * depth

    def windows(self, corners: Array, height: int, width: int) -> list[tuple[slice, slice] | None]:
        """The parts of the image in which the convex hulls of some points can be seen.

        Args:
            corners: ``[S, 3, N]``, N points of each of S things, in the world.
            height: of the image, pixels.
            width: of the image, pixels.

        Returns:
            For each thing slices of rows and columns; ``None`` if nothing of it is in the image.
        """
        x, y, z = np.einsum("ij,sjn->isn", self.axes, corners - self.position[:, None])
        before = -z > 1e-3
        # What is partly behind the camera may be seen anywhere.
        around = before.any(1) & ~before.all(1)
        far = self.focal(width) / np.where(before, -z, 1)
        columns, rows = width / 2 + x * far, height / 2 - y * far
        whole = np.array([0, height, 0, width])
        # Limited first: what is seen far outside of the image need not fit into an integer.
        edges = np.stack([rows.min(1), rows.max(1) + 1, columns.min(1), columns.max(1) + 1], axis=1)
        edges = np.clip(edges, 0, whole[[1, 1, 3, 3]])
        edges[:, ::2], edges[:, 1::2] = np.floor(edges[:, ::2]), np.ceil(edges[:, 1::2])
        edges = np.where(around[:, None], whole, edges).astype(int)
        seen = before.any(1) & (edges[:, 0] < edges[:, 1]) & (edges[:, 2] < edges[:, 3])
        return [
            (slice(top, bottom), slice(left, right)) if some else None
            for some, (top, bottom, left, right) in zip(seen.tolist(), edges.tolist(), strict=True)
        ]


def photograph(radiance: Array, generator: np.random.Generator, height: int, width: int, *, key: float = 0.2) -> Array:
    """Takes the picture.

    Args:
        radiance: ``[3, H, W]``, linear.
        generator: of exposure, color cast and noise.
        height: of the image, pixels.
        width: of the image, pixels.
        key: the mean that exposure aims at, linear.

    Returns:
        ``[H, W, 3]`` float32, 0 to 1, ready to be looked at.
    """
    gain = np.exp(generator.normal(0, 0.15))
    cast = np.exp(generator.normal(0, 0.04, (3, 1, 1))).astype(np.float32)
    level = generator.uniform(0.006, 0.016)
    corner = generator.uniform(0.0, 0.25)
    image = _blurred(radiance)
    # Bright windows and lamps should not make the rest of a room black.
    image = image * np.float32(key * gain / max(float(np.minimum(image, np.percentile(image, 90)).mean()), 1e-4)) * cast
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    image *= 1 - np.float32(corner) * (np.square(x) + np.square(y)) / 2
    # Film-like shoulder: highlights approach white instead of being cut.
    image = np.where(image < 0.6, image, 1 - 0.4 * np.exp(-(image - 0.6) / 0.4))
    image = np.maximum(image, 0) ** np.float32(1 / 2.2)
    noise = generator.standard_normal((3, height, width), dtype=np.float32)
    grainy = image + np.float32(level) * (1.3 - image) * noise
    return np.ascontiguousarray(np.clip(grainy, 0, 1).transpose(1, 2, 0))


def _blurred(image: Array) -> Array:
    """By about half a pixel, as a lens does; edges are not jagged afterwards."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    side = np.float32(0.15)
    across = padded[:, :, 1:-1] * (1 - 2 * side) + (padded[:, :, :-2] + padded[:, :, 2:]) * side
    blurred: Array = across[:, 1:-1] * (1 - 2 * side) + (across[:, :-2] + across[:, 2:]) * side
    return blurred
