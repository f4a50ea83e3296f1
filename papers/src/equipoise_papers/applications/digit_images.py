"""The 1,797 handwritten digits that come with scikit-learn, as tensors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import require

__all__ = ["DigitImages", "digit_images"]


class DigitImages(NamedTuple):
    """Images and their classes.

    Attributes:
        pixels: ``[N, 1, height, width]``, in [0, 1].
        labels: ``[N]``, whole numbers, at least 0.
    """

    pixels: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> DigitImages:
        """Some of them, in the order given."""
        return DigitImages(self.pixels[rows], self.labels[rows])


def digit_images() -> DigitImages:
    """All 1,797 digits of 8×8 pixels, in scikit-learn's order.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> images = digit_images()
        >>> tuple(images.pixels.shape), images.labels[:5].tolist()
        ((1797, 1, 8, 8), [0, 1, 2, 3, 4])
    """
    bundled = require("sklearn.datasets", "study").load_digits()
    pixels = np.asarray(bundled.images, dtype=np.float32) / 16.0  # stored as 0 … 16
    return DigitImages(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(np.asarray(bundled.target, dtype=np.int64)))
