"""A task of prompt tuning: labelled images, as features, in three splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError

__all__ = ["SPLITS", "PromptTask", "split_indices"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PromptTask:
    """One source of images, all of which are described by the same class names.

    Attributes:
        name: of the source.
        inputs: split → what the model gets for each image: features [n, F] for a CLIP; for a callable, anything that an array
            of row numbers indexes.
        labels: split → class of each image [n], integers from 0.
    """

    name: str
    inputs: Mapping[str, NDArray[np.generic]]
    labels: Mapping[str, NDArray[np.int64]]

    def __post_init__(self) -> None:
        for split, labels in self.labels.items():
            if split not in self.inputs or len(self.inputs[split]) != len(labels) or not len(labels):
                given = len(self.inputs[split]) if split in self.inputs else "no"
                raise InputError(
                    f'task "{self.name}" has {given} inputs and {len(labels)} labels in split "{split}"; give as many of both, '
                    "and at least one"
                )
        if "train" not in self.labels:
            raise InputError(f'task "{self.name}" has no split "train"; it has {", ".join(self.labels) or "none"}')


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
