"""The embedded benchmark: two real handwritten digits on one canvas, four tasks of two kinds and very different scale.

The digits are the 1,797 images of 8×8 pixels that come with scikit-learn, so nothing is downloaded. They are split
*before* canvases are composed: no stroke that is seen in training appears in validation or test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equipoise.data.loading import TensorBatches
from equipoise.errors import require

__all__ = ["Digits", "digits", "digits_pair"]

_SPLIT_SEED = 20240601  # part of the definition of the benchmark, as are the numbers below
_CANVAS = 12
_PAIR_CANVAS = 10
_DIGIT = 8
_SPLITS = {"train": (1000, 6000), "validation": (200, 1000), "test": (597, 2000)}  # digits, canvases


@dataclass(frozen=True)
class Digits:
    """The three splits of the benchmark, each a dictionary of tensors with ``N`` rows.

    ``image``
        ``[N, 1, 12, 12]`` float32 in [0, 1]: one digit top left, one bottom right; where they overlap (4×4 pixels)
        the brighter pixel counts.
    ``left``, ``right``
        ``[N]`` int64, the classes 0 to 9 of the two digits.
    ``sum``
        ``[N]`` float32, the sum of the two digits, 0 to 18.
    ``ink``
        ``[N]`` float32, ink of the left digit divided by ink of the right one; a digit's ink is the sum of its own 64
        pixels before the two are laid over each other. It lies between 0.6 and 1.8, with a mean near 1.

    Attributes:
        train: 6,000 canvases from 1,000 digits.
        validation: 1,000 canvases from 200 other digits.
        test: 2,000 canvases from the remaining 597 digits.
    """

    train: dict[str, Tensor]
    validation: dict[str, Tensor]
    test: dict[str, Tensor]

    def loaders(self, seed: int, batch_size: int = 128) -> tuple[TensorBatches, TensorBatches, TensorBatches]:
        """Batches of the three splits; training is shuffled by ``(seed, epoch)``, the others keep their order.

        Args:
            seed: seed of the training order.
            batch_size: canvases in a training batch; the other splits use larger ones, which are faster.

        Returns:
            Loaders for training, validation and test.
        """
        return (
            TensorBatches(self.train, batch_size, shuffle=True, seed=seed),
            TensorBatches(self.validation, 1000),
            TensorBatches(self.test, 1000),
        )


def digits() -> Digits:
    """Composes the benchmark; always the same tensors, in about a tenth of a second.

    Returns:
        The three splits.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> splits = digits()
        >>> {name: tuple(rows.shape) for name, rows in splits.test.items()}
        {'image': (2000, 1, 12, 12), 'left': (2000,), 'right': (2000,), 'sum': (2000,), 'ink': (2000,)}
    """
    return _composed(_CANVAS)


def digits_pair() -> Digits:
    """Two digits that hide each other, after MultiMNIST (Sabour et al., 2017): which are they?

    As :func:`digits`, with the same digits in the same pairs, but on canvases of 10×10, where they share 6×6 pixels of their
    8×8; in MultiMNIST it is 20×20 of 28×28. There are ``image`` ``[N, 1, 10, 10]``, ``left`` and ``right`` alone.

    Returns:
        The three splits.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> splits = digits_pair()
        >>> {name: tuple(rows.shape) for name, rows in splits.test.items()}
        {'image': (2000, 1, 10, 10), 'left': (2000,), 'right': (2000,)}
    """
    whole = _composed(_PAIR_CANVAS)
    parts = [{name: rows[name] for name in ("image", "left", "right")} for rows in (whole.train, whole.validation, whole.test)]
    return Digits(*parts)


def _composed(size: int) -> Digits:
    bundled = require("sklearn.datasets", "study").load_digits()
    images = np.asarray(bundled.images, dtype=np.float32) / 16.0  # stored as 0 … 16
    labels = np.asarray(bundled.target, dtype=np.int64)

    generator = np.random.default_rng(_SPLIT_SEED)
    order = generator.permutation(len(images))
    composed = {}
    start = 0
    for split, (count, canvases) in _SPLITS.items():
        own = order[start : start + count]
        start += count
        composed[split] = _compose(images[own], labels[own], canvases, size, generator)
    return Digits(**composed)


def _compose(
    images: np.ndarray, labels: np.ndarray, canvases: int, size: int, generator: np.random.Generator
) -> dict[str, Tensor]:
    """Draws pairs of digits and lays each over an empty canvas."""
    left, right = generator.integers(len(images), size=(2, canvases))
    canvas = np.zeros((canvases, size, size), dtype=np.float32)
    canvas[:, :_DIGIT, :_DIGIT] = images[left]
    corner = canvas[:, -_DIGIT:, -_DIGIT:]
    np.maximum(corner, images[right], out=corner)
    ink = images.sum(axis=(1, 2))
    return {
        "image": torch.from_numpy(canvas).unsqueeze(1),
        "left": torch.from_numpy(labels[left]),
        "right": torch.from_numpy(labels[right]),
        "sum": torch.from_numpy((labels[left] + labels[right]).astype(np.float32)),
        "ink": torch.from_numpy(ink[left] / ink[right]),
    }
