"""Depth estimation: absolute and relative error."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.metrics.tallies.base import Quantity, Tally, as_valid, exact, same_shape
from equipoise.metrics.tallies.pieces import Means, rows

__all__ = ["DepthTally"]


class DepthTally(Tally):
    """``absolute error`` |p − t| and ``relative error`` |p − t| / t, means over the pixels whose target is above 0.

    The relative error is a ratio, not a percentage; on Cityscapes, whose targets are inverse depths close to 0, the papers'
    tables have it above 20.

    Args:
        average: ``"pixels"`` for the mean over all valid pixels of the set; ``"batches"`` is what the released code of
            MTAN and FAMO computes, ``"weighted batches"`` what LibMTL does. See
            :data:`equipoise.metrics.tallies.pieces.AVERAGES`.

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
