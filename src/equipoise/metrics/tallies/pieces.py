"""What is averaged. The published numbers differ in this, and they cannot be told apart by their names."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError, near_misses

__all__ = ["AVERAGES", "Means", "check_average"]

AVERAGES: Final = {
    "pixels": "every valid pixel of the whole set counts the same",
    "images": "one value an image, every image with a valid pixel counts the same",
    "batches": "one value a batch, every batch counts the same, also a smaller last one",
    "weighted batches": "one value a batch, weighted by its number of images",
}
"""Name → what it means."""


def check_average(average: str) -> str:
    """Refuses a name that is not one of :data:`AVERAGES`."""
    if average not in AVERAGES:
        known = ", ".join(f'"{name}"' for name in AVERAGES)
        raise InputError(f'there is no average "{average}".{near_misses(average, AVERAGES)} Known: {known}')
    return average


class Means:
    """Means of several quantities of pixels, over pixels, images or batches.

    Args:
        quantities: how many.
        average: one of :data:`AVERAGES`.

    Example:
        >>> means = Means(1, "images")
        >>> means.add(torch.tensor([[6.0], [4.0]]), torch.tensor([3, 1]))  # one image of 3 pixels, one of a single one
        >>> means.result()
        array([3.])
    """

    def __init__(self, quantities: int, average: str) -> None:
        self.average = check_average(average)
        self._sums = np.zeros(quantities)
        self._weight = 0.0

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Counts one batch.

        Args:
            sums: sum over the valid pixels of each image and quantity ``[N, Q]``.
            counts: how many valid pixels each image has ``[N]``.
        """
        sums, counts = sums.detach().double().cpu(), counts.detach().cpu()
        if self.average == "images":
            self.add_values((sums / counts[:, None])[counts > 0].numpy())
            return
        total = int(counts.sum())
        if not total:
            return
        of_batch = sums.sum(0)
        if self.average == "pixels":
            self._sums += of_batch.numpy()
            self._weight += total
        else:
            self.add_values((of_batch / total)[None].numpy(), len(counts) if self.average == "weighted batches" else 1)

    def add_values(self, values: np.ndarray, weight: float = 1.0) -> None:
        """Counts values that are means already: one row a piece ``[n, Q]``, all with the same weight."""
        self._sums += weight * values.sum(0)
        self._weight += weight * len(values)

    def result(self) -> np.ndarray:
        """The means ``[Q]``.

        Raises:
            InputError: there was no valid pixel.
        """
        if not self._weight:
            raise InputError("a summary was asked for before anything valid was added; add a batch that has a valid target")
        return self._sums / self._weight


def rows(tensor: Tensor) -> Tensor:
    """A batch as one row an image: ``[N, ...]`` → ``[N, pixels]``."""
    return torch.flatten(tensor, 1) if tensor.ndim > 1 else tensor[:, None]
