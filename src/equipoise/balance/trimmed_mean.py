"""The coordinate-wise trimmed mean of the task gradients."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import GradientBalancer, as_numbers
from equipoise.balance.registry import register
from equipoise.errors import InputError

__all__ = ["TrimmedMean"]

# Columns that are sorted at a time: what is held besides the rows stays small.
_COLUMNS = 1 << 20


@register(
    "trimmed-mean",
    summary="in every coordinate the mean without the largest and the smallest entries",
    paper="Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018",
    price="K backward",
    promise="`trim` arbitrary gradients cannot carry any coordinate out of the others' range",
    serves="tasks that are copies of one, some of them corrupt, as workers of federated training",
    caveats="tasks off the crowd are hardly trained; the units of a loss matter",
    adds_up_to="there are none",
    checked="TorchJD, sorting by hand",
    same_as=(({"trim": 0}, "ls"),),
)
class TrimmedMean(GradientBalancer):
    """In every coordinate, the mean of what is neither among the b largest nor the b smallest entries (Yin et al., 2018).

    b is ``trim``. Where a step has too few tasks to trim that many, as many are trimmed as leave one entry or two: the median.
    TorchJD refuses those.

    Args:
        trim: b ≥ 0, how many entries are left out at each end; 0 is the mean.

    Raises:
        InputError: it is negative.

    Example:
        >>> TrimmedMean(trim=1).direction([[1.0, 0.0], [2.0, -50.0], [90.0, 1.0]])
        tensor([2., 0.], dtype=torch.float64)
    """

    def __init__(self, trim: int = 1) -> None:
        if trim < 0:
            raise InputError(f"trim must be at least 0; got {trim}")
        self.trim = trim

    def direction(self, gradients: Tensor | ArrayLike) -> Tensor:
        """Direction ``[P]`` from gradients ``[K, P]``."""
        gradients = as_numbers(gradients, "task gradients", 2)
        tasks = len(gradients)
        trim = min(self.trim, (tasks - 1) // 2)
        if trim == 0:
            return gradients.mean(0)
        parts = gradients.split(max(_COLUMNS // tasks, 1), dim=1)
        return torch.cat([part.sort(dim=0).values[trim : tasks - trim].mean(0) for part in parts])

    def __repr__(self) -> str:
        return f"TrimmedMean(trim={self.trim})"
