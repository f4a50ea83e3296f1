"""What a tally is: it takes batches, however large each is, and sums up at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics.metric import Metric

__all__ = ["Quantity", "Tally", "exact", "same_shape"]


@dataclass(frozen=True)
class Quantity:
    """One number of a tally's summary, not yet tied to a task.

    Attributes:
        name: its key in the summary.
        higher_is_better: the better direction.
        unit: what it is counted in.
    """

    name: str
    higher_is_better: bool
    unit: str = ""


class Tally(ABC):
    """Gathers one task's metrics over batches. A batch may be of any size and on any device.

    Attributes:
        quantities: what the summary consists of, in order.
    """

    quantities: tuple[Quantity, ...]

    @abstractmethod
    def add(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Counts one batch.

        Args:
            prediction: of the model.
            target: what would have been right.
            valid: truth values that leave out more than the targets themselves mark as missing; of the target's shape,
                without its channels where it has any.

        Raises:
            InputError: shapes that do not fit.
        """

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Name of each quantity → its value over everything that was added.

        Raises:
            InputError: nothing was added, or nothing of it was valid.
        """

    def metrics(self, task: str) -> tuple[Metric, ...]:
        """The quantities as metrics of a task, such as ``"depth absolute error"``, for a study's problem."""
        return tuple(
            Metric(f"{task} {quantity.name}", task, higher_is_better=quantity.higher_is_better, unit=quantity.unit)
            for quantity in self.quantities
        )

    def values(self, task: str) -> dict[str, float]:
        """The summary under the names of :meth:`metrics`."""
        return {f"{task} {name}": value for name, value in self.summary().items()}


def exact(tensor: Tensor) -> Tensor:
    """The tensor in double precision, where its device is able to; on the CPU otherwise."""
    tensor = tensor.detach()
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def same_shape(prediction: Tensor, target: Tensor, what: str) -> None:
    """Refuses shapes that differ: broadcasting ``[N, 1]`` against ``[N]`` would quietly compare everything with everything."""
    if prediction.shape != target.shape:
        raise InputError(
            f"{what}: predictions of shape {tuple(prediction.shape)} and targets of shape {tuple(target.shape)}; "
            "both must have the same shape"
        )


def as_valid(valid: Tensor | None, like: Tensor, what: str) -> Tensor:
    """The user's truth values, or ones."""
    if valid is None:
        return torch.ones_like(like, dtype=torch.bool)
    if valid.shape != like.shape:
        raise InputError(f"{what}: valid has shape {tuple(valid.shape)}; expected {tuple(like.shape)}")
    return valid.to(like.device).bool()
