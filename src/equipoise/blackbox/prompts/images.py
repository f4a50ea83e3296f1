"""Images as CLIP takes them, read with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError, require

__all__ = ["MEAN", "STD", "read_image"]

# Of the pixels that CLIP was trained on, by channel; part of the model.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def read_image(path: Path, size: int = 224) -> NDArray[np.float32]:
    """An image [3, size, size]: the shorter edge scaled to ``size`` (bicubic), the centre cut out, channels normalised.

    Raises:
        MissingExtraError: Pillow is not installed.
        InputError: the file is no image.
    """
    module = require("PIL.Image", "prompts")
    try:
        with module.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise InputError(f"{path} cannot be read as an image ({error})") from error
    width, height = image.size
    factor = size / min(width, height)
    image = image.resize((max(size, round(width * factor)), max(size, round(height * factor))), module.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255.0
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1))
