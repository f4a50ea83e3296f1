"""The random 60/20/20 split of a source of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError

__all__ = ["SPLITS", "split_indices"]

SPLITS = ("train", "validation", "test")


def split_indices(count: int, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Row numbers of a random 60/20/20 split of so many images, always the same for a seed.

    Raises:
        InputError: fewer than five images, of which some split would be empty.

    Example:
        >>> {split: len(rows) for split, rows in split_indices(50).items()}
        {'train': 30, 'validation': 10, 'test': 10}
    """
    if count < 5:
        raise InputError(f"{count} images cannot be split 60/20/20; at least 5 are needed")
    order = np.random.default_rng(seed).permutation(count)
    first, second = round(0.6 * count), round(0.8 * count)
    return dict(zip(SPLITS, np.split(order, [first, second]), strict=True))
