"""Regression: mean absolute error."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.metrics.tallies.base import Quantity, Tally, as_valid, exact, same_shape
from equipoise.metrics.tallies.pieces import Means, rows

__all__ = ["ErrorTally"]


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
