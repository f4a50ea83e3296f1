"""Semantic segmentation: mIoU and pixel accuracy."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics.tallies.base import Quantity, Tally
from equipoise.metrics.tallies.confusion import ConfusionMatrix, labels, scores
from equipoise.metrics.tallies.pieces import Means, check_average, rows

__all__ = ["SegmentationTally"]


class SegmentationTally(Tally):
    """``mIoU`` and ``pixel accuracy``, in percent.

    The intersection over union of a class is ``TP / (TP + FP + FN)``; mIoU is the mean over the classes that occur, in a
    target or in a prediction. Pixel accuracy is the share of valid pixels that got their class.

    Both come from one confusion matrix over the whole set, as in the released code of MTAN, FAMO and LibMTL. A mean over
    images (the older practice of MTAN) or batches is another number, larger or smaller, and has to be asked for. Where a
    class occurs nowhere, that code returns ``nan``; here the class is left out.

    Args:
        classes: how many there are.
        ignore: target pixels of this value are left out; ``None`` for none.
        average: ``"pixels"``, ``"images"``, ``"batches"`` or ``"weighted batches"``, see
            :data:`equipoise.metrics.tallies.pieces.AVERAGES`.

    Raises:
        InputError: fewer than two classes, or an unknown average.

    Example:
        >>> import torch
        >>> tally = SegmentationTally(3)
        >>> tally.add(torch.tensor([[[0, 0], [1, 1]]]), torch.tensor([[[0, 1], [1, -1]]]))
        >>> tally.summary()  # both classes that occur have one pixel in common out of two
        {'mIoU': 50.0, 'pixel accuracy': 66.66666666666666}
    """

    quantities = (Quantity("mIoU", True, "%"), Quantity("pixel accuracy", True, "%"))

    def __init__(self, classes: int, ignore: int | None = -1, average: str = "pixels") -> None:
        self.average = check_average(average)
        self.confusion = ConfusionMatrix(classes, ignore)
        self._means = Means(2, "images")

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: scores ``[N, classes, H, W]``, such as logits, or labels ``[N, H, W]``.
            target: labels ``[N, H, W]``.
            valid: truth values ``[N, H, W]`` of pixels that count.

        Raises:
            InputError: shapes that do not fit, or a label that is no class.
        """
        predicted = labels(prediction, target, self.confusion.classes)
        counts = self.confusion.of(rows(predicted), rows(target), None if valid is None else rows(valid))
        self.confusion.counts += counts.sum(0)
        pieces = counts if self.average == "images" else counts.sum(0, keepdims=True)
        pieces = pieces[pieces.sum((1, 2)) > 0]
        if len(pieces):
            self._means.add_values(_summed_up(pieces), len(target) if self.average == "weighted batches" else 1.0)

    def summary(self) -> dict[str, float]:
        if self.average == "pixels" and self.confusion.counts.sum():
            values = _summed_up(self.confusion.counts[None])[0]
        else:
            values = self._means.result()
        return {quantity.name: float(value) for quantity, value in zip(self.quantities, values, strict=True)}

    def of_classes(self) -> list[float]:
        """Intersection over union of each class over the whole set, in percent; ``nan`` where it does not occur.

        Raises:
            InputError: nothing was added.
        """
        if not self.confusion.counts.sum():
            raise InputError("intersections were asked for before anything valid was added")
        return [float(value) for value in 100 * _intersections(self.confusion.counts)]


def _intersections(counts: np.ndarray) -> np.ndarray:
    true, false, missed = scores(counts)
    union = true + false + missed
    shares: np.ndarray = np.divide(true, union, out=np.full(true.shape, np.nan), where=union > 0)
    return shares


def _summed_up(counts: np.ndarray) -> np.ndarray:
    """Both quantities ``[n, 2]`` of matrices ``[n, classes, classes]`` that are not empty."""
    right = np.trace(counts, axis1=1, axis2=2) / counts.sum((1, 2))
    return 100 * np.stack([np.nanmean(_intersections(counts), axis=1), right], axis=1)
