"""Tallies of numbers: errors, depth, and angles between surface normals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics.tallies.base import Means, Quantity, Tally, as_valid, check_average, exact, rows, same_shape

__all__ = ["DepthTally", "ErrorTally", "NormalTally", "angles"]


class ErrorTally(Tally):
    """``error``, the mean absolute error (MAE) over all entries that are there.

    Args:
        scale: what errors are multiplied by: the standard deviation that targets were divided by, a change of unit.
        unit: of the scaled error, such as ``"meV"``.

    Example:
        >>> tally = ErrorTally(scale=1000, unit="meV")
        >>> tally.add(torch.tensor([0.5, 1.0]), torch.tensor([0.25, float("nan")]))
        >>> tally.summary()
        {'error': 250.0}
    """

    def __init__(self, scale: float = 1.0, unit: str = "") -> None:
        self.scale = scale
        self.quantities = (Quantity("error", False, unit),)
        self._means = Means(1, "pixels")

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: numbers ``[N, ...]``.
            target: numbers of the same shape; ``nan`` where there is none.
            valid: truth values of the same shape.

        Raises:
            InputError: shapes that differ.
        """
        same_shape(prediction, target, "error")
        valid = rows(as_valid(valid, target, "error") & ~torch.isnan(target))
        error = rows((exact(prediction.to(target.device)) - exact(target)).abs())
        valid = valid.to(error.device)
        self._means.add(torch.where(valid, error, 0.0).sum(1, keepdim=True) * self.scale, valid.sum(1))

    def summary(self) -> dict[str, float]:
        return {"error": float(self._means.result()[0])}


class DepthTally(Tally):
    """``absolute error`` |p − t| and ``relative error`` |p − t| / t, means over the pixels whose target is above 0.

    The relative error is a ratio, not a percentage; on Cityscapes, whose targets are inverse depths close to 0, the papers'
    tables have it above 20.

    Args:
        average: ``"pixels"`` for the mean over all valid pixels of the set; ``"batches"`` is what the released code of
            MTAN and FAMO computes, ``"weighted batches"`` what LibMTL does. See
            :data:`equipoise.metrics.tallies.base.AVERAGES`.

    Raises:
        InputError: an unknown average.

    Example:
        >>> tally = DepthTally()
        >>> tally.add(torch.tensor([[1.5, 3.0, 9.0]]), torch.tensor([[1.0, 4.0, 0.0]]))
        >>> tally.summary()
        {'absolute error': 0.75, 'relative error': 0.375}
    """

    quantities = (Quantity("absolute error", False), Quantity("relative error", False))

    def __init__(self, average: str = "pixels") -> None:
        self._means = Means(2, average)

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: depths ``[N, ...]``.
            target: depths of the same shape and unit; where it is not above 0, or not finite, there is no measurement.
            valid: truth values of the same shape.

        Raises:
            InputError: shapes that differ.
        """
        same_shape(prediction, target, "depth")
        valid = as_valid(valid, target, "depth") & (target > 0) & torch.isfinite(target)
        valid, target, prediction = rows(valid), rows(exact(target)), rows(exact(prediction.to(target.device)))
        valid = valid.to(target.device)
        error = torch.where(valid, (prediction - target).abs(), 0.0)
        relative = error / torch.where(valid, target, 1.0)
        self._means.add(torch.stack([error.sum(1), relative.sum(1)], 1), valid.sum(1))

    def summary(self) -> dict[str, float]:
        return {quantity.name: float(value) for quantity, value in zip(self.quantities, self._means.result(), strict=True)}


_FINE = 1000
"""Cells of the histogram per degree: the median is exact to half of one."""


class NormalTally(Tally):
    """``mean angle`` and ``median angle`` in degrees, and the share ``within t`` degrees for each t, in percent.

    Neither predictions nor targets need have length 1. A prediction without direction (all zeros) counts as 90°. The median
    over a whole set comes from a histogram of 0.001°, so that memory does not grow with the set; it is off by at most
    0.0005°. The median of an image or a batch is exact.

    Args:
        within: the angles t.
        average: ``"pixels"`` for all valid pixels of the set alike, as LibMTL does; ``"batches"`` is what the released code
            of MTAN and FAMO computes, where the median in particular is a mean of medians. See
            :data:`equipoise.metrics.tallies.base.AVERAGES`.
        missing: which targets are none: ``"zero"`` where all components are 0; ``"sum"`` where their sum is, as in that code,
            which also drops a normal such as (1, −1, 0)/√2.

    Raises:
        InputError: an unknown average or ``missing``.

    Example:
        >>> tally = NormalTally()
        >>> up, right = [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]
        >>> tally.add(torch.tensor([up, up, up]), torch.tensor([up, right, up]))
        >>> {name: round(value, 2) for name, value in tally.summary().items()}
        {'mean angle': 30.0, 'median angle': 0.0, 'within 11.25': 66.67, 'within 22.5': 66.67, 'within 30': 66.67}
    """

    def __init__(
        self, within: Sequence[float] = (11.25, 22.5, 30), average: str = "pixels", missing: Literal["zero", "sum"] = "zero"
    ) -> None:
        if missing not in ("zero", "sum"):
            raise InputError(f'missing is {missing!r}; it must be "zero" or "sum"')
        self.within = tuple(within)
        self.average = check_average(average)
        self.missing = missing
        self.quantities = (
            Quantity("mean angle", False, "°"),
            Quantity("median angle", False, "°"),
            *(Quantity(f"within {angle:g}", True, "%") for angle in self.within),
        )
        self._means = Means(len(self.quantities), average)
        self._histogram = np.zeros(180 * _FINE, dtype=np.int64)
        self._finite = True

    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: vectors ``[N, 3, ...]``.
            target: vectors of the same shape; zeros where there is none.
            valid: truth values ``[N, ...]``.

        Raises:
            InputError: shapes that differ, or no three components in dimension 1.
        """
        same_shape(prediction, target, "normals")
        if target.ndim < 2 or target.shape[1] != 3:
            raise InputError(f"normals of shape {tuple(target.shape)}; expected three components in dimension 1: [N, 3, ...]")
        there = (target != 0).any(1) if self.missing == "zero" else target.sum(1) != 0
        counted = rows(as_valid(valid, there, "normals") & there)
        found = rows(angles(prediction.to(target.device), target))
        counted = counted.to(found.device)
        if self.average == "pixels":
            self._add_pixels(found, counted)
        elif self.average == "images":
            for own, there in zip(found, counted, strict=True):
                self._add_piece(own[there])
        else:
            self._add_piece(found[counted], float(len(found)) if self.average == "weighted batches" else 1.0)

    def _add_pixels(self, found: Tensor, counted: Tensor) -> None:
        within = [100 * ((found < angle) & counted).sum(1).double() for angle in self.within]
        total = torch.where(counted, found, 0.0).sum(1)
        self._means.add(torch.stack([total, torch.zeros_like(total), *within], 1), counted.sum(1))  # the median comes later
        piece = found[counted]
        if not bool(torch.isfinite(piece).all()):
            self._finite = False  # a prediction that is no number: then neither is the median
            return
        cells = (piece * _FINE).long().clamp_(0, 180 * _FINE - 1)
        self._histogram += torch.bincount(cells, minlength=180 * _FINE).cpu().numpy()

    def _add_piece(self, piece: Tensor, weight: float = 1.0) -> None:
        if piece.numel():
            within = [100 * float((piece < angle).double().mean()) for angle in self.within]
            self._means.add_values(np.array([[float(piece.mean()), _median(piece), *within]]), weight)

    def summary(self) -> dict[str, float]:
        values = self._means.result()
        if self.average == "pixels":
            values[1] = self._median() if self._finite else np.nan
        return {quantity.name: float(value) for quantity, value in zip(self.quantities, values, strict=True)}

    def _median(self) -> float:
        below = self._histogram.cumsum()
        ranks = ((int(below[-1]) - 1) // 2, int(below[-1]) // 2)
        cells = [int(np.searchsorted(below, rank, side="right")) for rank in ranks]
        # The middle of a cell, but for the first, where perfect predictions are.
        return sum((cell + 0.5) / _FINE if cell else 0.0 for cell in cells) / 2


def angles(one: Tensor, other: Tensor) -> Tensor:
    """Angles in degrees between vectors ``[N, 3, ...]``, of any length: ``atan2(‖a × b‖, a · b)``.

    That is exact for small angles too, where the arc cosine of a product close to 1 loses half of its digits.

    Returns:
        ``[N, ...]``; 90 where the first vector has no direction.
    """
    one, other = exact(one), exact(other)
    across = torch.linalg.vector_norm(torch.linalg.cross(one, other, dim=1), dim=1)
    angle = torch.rad2deg(torch.atan2(across, (one * other).sum(1)))
    return torch.where((one == 0).all(1), 90.0, angle)


def _median(values: Tensor) -> float:
    ordered = values.sort().values
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
