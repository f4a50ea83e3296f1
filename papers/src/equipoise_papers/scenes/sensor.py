"""From light to the numbers of an image: lens, exposure, white balance, noise, gamma."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.arrays import Array

__all__ = ["photograph"]


def photograph(radiance: Array, generator: np.random.Generator, height: int, width: int, *, key: float = 0.2) -> Array:
    """Takes the picture.

    Args:
        radiance: ``[3, H, W]``, linear.
        generator: of exposure, colour cast and noise.
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
