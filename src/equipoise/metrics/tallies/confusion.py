"""A confusion matrix that is gathered batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["ConfusionMatrix", "labels", "scores"]


class ConfusionMatrix:
    """Counts how often each class was taken for each other; ``counts[target, prediction]``.

    Args:
        classes: how many there are, at least 2.
        ignore: targets of this value are left out; ``None`` for none.

    Raises:
        InputError: fewer than two classes.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.add(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, -1]))
        >>> matrix.counts
        array([[1, 1],
               [0, 1]])
    """

    def __init__(self, classes: int, ignore: int | None = -1) -> None:
        if classes < 2:
            raise InputError(f"classes is {classes}; it must be at least 2")
        self.classes = classes
        self.ignore = ignore
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts labels against labels, of the same shape.

        Raises:
            InputError: shapes that differ, or a label that is no class and not the ignored one.
        """
        self.counts += self.of(prediction.reshape(1, -1), target.reshape(1, -1), valid)[0]

    def of(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> np.ndarray:
        """The matrices ``[N, classes, classes]`` of the rows of ``[N, n]`` labels, without counting them in."""
        if prediction.shape != target.shape:
            raise InputError(
                f"predicted labels of shape {tuple(prediction.shape)} and targets of shape {tuple(target.shape)}; both must "
                "have the same shape"
            )
        prediction, target = prediction.detach().long(), target.detach().to(prediction.device).long()
        counted = torch.ones_like(target, dtype=torch.bool) if self.ignore is None else target != self.ignore
        if valid is not None:
            counted = counted & valid.reshape(target.shape).to(target.device).bool()
        row = torch.arange(len(target), device=target.device)[:, None].expand_as(target)[counted]
        prediction, target = prediction[counted], target[counted]
        for name, found in (("target", target), ("prediction", prediction)):
            if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < self.classes:
                wrong = int(found.min()) if int(found.min()) < 0 else int(found.max())
                left_out = "" if self.ignore is None else f" ({self.ignore} is left out)"
                raise InputError(f"a {name} has the label {wrong}; there are the classes 0 to {self.classes - 1}{left_out}")
        square = self.classes**2
        where = row * square + target * self.classes + prediction
        rows = len(counted)
        return torch.bincount(where, minlength=rows * square).reshape(rows, self.classes, self.classes).cpu().numpy()


def labels(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """Labels from scores of the classes in dimension 1, or the labels that were given already.

    Raises:
        InputError: neither of both fits the target.
    """
    if prediction.shape == target.shape and not prediction.is_floating_point():
        return prediction
    expected = (*target.shape[:1], classes, *target.shape[1:])
    if tuple(prediction.shape) != expected:
        raise InputError(
            f"predictions of shape {tuple(prediction.shape)} do not fit targets of shape {tuple(target.shape)}; expected "
            f"scores of shape {expected}, or whole-number labels of the target's shape"
        )
    return prediction.detach().argmax(1)


def scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives and false negatives of each class, from matrices ``[..., classes, classes]``."""
    true = np.diagonal(counts, axis1=-2, axis2=-1)
    return true, counts.sum(-2) - true, counts.sum(-1) - true
