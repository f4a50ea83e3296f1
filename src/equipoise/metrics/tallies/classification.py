"""Tallies of classes: accuracy, binary attributes, confusion matrices, segmentation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics.tallies.base import Means, Quantity, Tally, as_valid, check_average, rows, same_shape

__all__ = ["BinaryTally", "ClassTally", "ConfusionMatrix", "SegmentationTally", "f1", "labels", "scores"]


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


class BinaryTally(Tally):
    """``accuracy`` and ``F1`` of the positive class, ``2 TP / (2 TP + FP + FN)``, in percent.

    F1 is 0 where there is no positive, neither in a target nor in a prediction, as in the released code of FAMO.

    Args:
        threshold: predictions above it say yes: 0 for logits, 0.5 for probabilities.
        accuracy: whether the summary has the accuracy.
        f1: whether the summary has the F1 score.

    Raises:
        InputError: neither of the two is asked for.

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
        InputError: neither of the two fits the target.
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
            :data:`equipoise.metrics.tallies.base.AVERAGES`.

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
