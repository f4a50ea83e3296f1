"""A task of prompt tuning: labelled images, as features, in three splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.data.office import SPLITS, split_indices
from equipoise.errors import InputError

__all__ = ["SPLITS", "PromptTask", "split_indices"]


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
                    f'task "{self.name}" has {given} inputs and {len(labels)} labels in split "{split}"; give equally many, '
                    "and at least one"
                )
        if "train" not in self.labels:
            raise InputError(f'task "{self.name}" has no split "train"; it has {", ".join(self.labels) or "none"}')
