"""Classification: accuracy and macro F1."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics.tallies.base import Quantity, Tally
from equipoise.metrics.tallies.confusion import ConfusionMatrix, labels, scores

__all__ = ["ClassTally", "f1"]


class ClassTally(Tally):
    """``accuracy`` and, if asked for, macro ``F1``, in percent.

    The F1 score of a class is ``2 TP / (2 TP + FP + FN)``; macro F1 is the mean over the classes that occur, in a target or
    in a prediction.

    Args:
        classes: how many there are.
        ignore: targets of this value are left out; ``None`` for none.
        f1: whether the summary has the F1 score.

    Example:
        >>> import torch
        >>> tally = ClassTally(3, f1=True)
        >>> tally.add(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]))
        >>> {name: round(value, 2) for name, value in tally.summary().items()}
        {'accuracy': 75.0, 'F1': 73.33}
    """

    def __init__(self, classes: int, ignore: int | None = -1, *, f1: bool = False) -> None:
        self.quantities = (Quantity("accuracy", True, "%"), *([Quantity("F1", True, "%")] if f1 else []))
        self.confusion = ConfusionMatrix(classes, ignore)

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: scores ``[N, classes]``, or labels ``[N]``.
            target: labels ``[N]``.
            valid: truth values ``[N]``.

        Raises:
            InputError: shapes that do not fit, or a label that is no class.
        """
        self.confusion.add(labels(prediction, target, self.confusion.classes), target, valid)

    def summary(self) -> dict[str, float]:
        counts = self.confusion.counts
        if not counts.sum():
            raise InputError("a summary was asked for before anything valid was added; add a batch that has a valid target")
        values = {"accuracy": 100 * float(np.trace(counts) / counts.sum()), "F1": 100 * float(np.nanmean(f1(counts)))}
        return {quantity.name: values[quantity.name] for quantity in self.quantities}


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 score of each class from a confusion matrix, between 0 and 1; ``nan`` for a class that does not occur."""
    true, false, missed = scores(counts)
    total = 2 * true + false + missed
    shares: np.ndarray = np.divide(2 * true, total, out=np.full(true.shape, np.nan), where=total > 0)
    return shares
