"""One image file as an array of bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.errors import DataSetError, require

__all__ = ["channels_first", "decode"]


def decode(path: str | Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image ``[H, W, 3]``, brought to ``size`` (height, width) by Pillow's antialiased bilinear filter, whatever its shape.

    Raises:
        MissingExtraError: Pillow is not installed.
        DataSetError: the file is not there, or cannot be decoded.
    """
    module = require("PIL.Image", "images")
    try:
        with module.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, module.DecompressionBombError) as error:  # what Pillow's readers raise
        raise DataSetError(f"{path} cannot be read as an image ({error}); get the file anew from its source") from error
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), module.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


def channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """Bytes ``[…, H, W, 3]`` as float32 ``[…, 3, H, W]`` in [0, 1].

    Example:
        >>> channels_first(np.full((2, 4, 5, 3), 255, dtype=np.uint8)).shape
        torch.Size([2, 3, 4, 5])
    """
    return torch.from_numpy(pixels).movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
