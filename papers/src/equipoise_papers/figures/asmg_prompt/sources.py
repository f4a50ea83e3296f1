"""Three sources of labelled images out of the real handwritten digits: plain, inverted, noisy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.prompts import split_indices
from equipoise.errors import require

__all__ = ["CLASSES", "SOURCES", "Source", "sources"]

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SOURCES = ("plain", "inverted", "noisy")
_SPLIT_SEED = 20261124


@dataclass(frozen=True)
class Source:
    """A source's images [n, 3, 16, 16] and labels [n], the part on which the CLIP is trained apart from that for tasks.

    Attributes:
        name: of the source.
        pretraining: images and labels that only the CLIP's training sees.
        pixels: of the task, split → images.
        labels: of the task, split → classes.
    """

    name: str
    pretraining: tuple[NDArray[np.float32], NDArray[np.int64]]
    pixels: dict[str, NDArray[np.float32]]
    labels: dict[str, NDArray[np.int64]]


def sources() -> list[Source]:
    """The 1,797 digits are split first, 600 for training the CLIP and the others 60/20/20 for the tasks; always the same."""
    bundled = require("sklearn.datasets", "study").load_digits()
    images = np.asarray(bundled.images, dtype=np.float32) / 16.0
    labels = np.asarray(bundled.target, dtype=np.int64)
    rng = np.random.default_rng(_SPLIT_SEED)
    order = rng.permutation(len(images))
    first, rest = order[:600], order[600:]
    found = []
    for name in SOURCES:
        seen = {
            "plain": images,
            "inverted": 1.0 - images,
            "noisy": np.clip(images + rng.normal(0.0, 0.35, images.shape), 0.0, 1.0).astype(np.float32),
        }[name]
        enlarged = np.kron(seen, np.ones((2, 2), dtype=np.float32))[:, None] * 2.0 - 1.0
        pixels = np.repeat(enlarged, 3, axis=1).astype(np.float32)
        splits = {split: rest[rows] for split, rows in split_indices(len(rest), _SPLIT_SEED).items()}
        found.append(
            Source(
                name,
                (pixels[first], labels[first]),
                {split: pixels[rows] for split, rows in splits.items()},
                {split: labels[rows] for split, rows in splits.items()},
            )
        )
    return found
