"""Yes or no: accuracy and F1."""

from __future__ import annotations

from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics.tallies.base import Quantity, Tally, as_valid, same_shape
from equipoise.metrics.tallies.confusion import ConfusionMatrix

__all__ = ["BinaryTally"]


class BinaryTally(Tally):
    """``accuracy`` and ``F1`` of the positive class, ``2 TP / (2 TP + FP + FN)``, in percent.

    F1 is 0 where there is no positive, neither in a target nor in a prediction, as in the released code of FAMO.

    Args:
        threshold: predictions above it say yes: 0 for logits, 0.5 for probabilities.
        accuracy: whether the summary has the accuracy.
        f1: whether the summary has the F1 score.

    Raises:
        InputError: neither of both.

    Example:
        >>> import torch
        >>> tally = BinaryTally()
        >>> tally.add(torch.tensor([3.0, -1.0, 2.0, -2.0]), torch.tensor([1, 0, 0, 1]))
        >>> tally.summary()
        {'accuracy': 50.0, 'F1': 50.0}
    """

    def __init__(self, threshold: float = 0.0, *, accuracy: bool = True, f1: bool = True) -> None:
        if not (accuracy or f1):
            raise InputError("neither accuracy nor f1 was asked for; ask for at least one")
        self.threshold = threshold
        self.quantities = tuple(Quantity(name, True, "%") for name, asked in (("accuracy", accuracy), ("F1", f1)) if asked)
        self._confusion = ConfusionMatrix(2, ignore=None)

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: scores ``[N, ...]``.
            target: 0 or 1, of the same shape.
            valid: truth values of the same shape.

        Raises:
            InputError: shapes that differ, or a target other than 0 and 1.
        """
        same_shape(prediction, target, "yes or no")
        valid = as_valid(valid, target, "yes or no")
        odd = target[valid & (target != 0) & (target != 1)]
        if odd.numel():
            raise InputError(f"a target is {float(odd[0]):g}; it must be 0 or 1")
        self._confusion.add(prediction.detach() > self.threshold, target, valid)

    def summary(self) -> dict[str, float]:
        (rejected, false), (missed, true) = self._confusion.counts.tolist()
        total = rejected + false + missed + true
        if not total:
            raise InputError("a summary was asked for before anything valid was added; add a batch that has a valid target")
        positives = 2 * true + false + missed
        values = {"accuracy": 100 * (true + rejected) / total, "F1": 100 * 2 * true / positives if positives else 0.0}
        return {quantity.name: values[quantity.name] for quantity in self.quantities}
