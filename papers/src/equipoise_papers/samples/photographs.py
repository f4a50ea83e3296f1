"""JPEG files with random patches of colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from equipoise.errors import require
from equipoise_papers.samples.patches import patches

__all__ = ["write_photograph"]


def write_photograph(path: Path, rng: np.random.Generator, size: tuple[int, int], tint: float) -> None:
    """Writes an image whose mean red goes with ``tint``, from 0 to 1.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    module = require("PIL.Image", "images")
    channels = [patches(rng, size) * 0.5 + tint * 0.5, patches(rng, size), patches(rng, size)]
    pixels = (np.stack(channels, axis=-1) * 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    module.fromarray(pixels).save(path, quality=90)
