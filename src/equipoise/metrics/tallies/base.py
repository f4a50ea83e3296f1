"""What a tally is, how it is gathered piece by piece, and the evaluation of a model by several of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.errors import InputError, UnknownTaskError, near_misses
from equipoise.metrics.metric import Metric

__all__ = ["AVERAGES", "Evaluation", "Means", "Quantity", "Tally", "check_average", "exact", "same_shape"]


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


AVERAGES: Final = {
    "pixels": "every valid pixel of the whole set counts the same",
    "images": "one value per image, every image with a valid pixel counts the same",
    "batches": "one value per batch, every batch counts the same, also a smaller last one",
    "weighted batches": "one value per batch, weighted by its number of images",
}
"""Name → what it means."""


def check_average(average: str) -> str:
    """Refuses a name that is not one of :data:`AVERAGES`."""
    if average not in AVERAGES:
        known = ", ".join(f'"{name}"' for name in AVERAGES)
        raise InputError(f'there is no average "{average}".{near_misses(average, AVERAGES)} Known: {known}')
    return average


class Means:
    """Means of several quantities of pixels, over pixels, images or batches (``average``, one of :data:`AVERAGES`).

    Example:
        >>> means = Means(1, "images")
        >>> means.add(torch.tensor([[6.0], [4.0]]), torch.tensor([3, 1]))  # one image of 3 pixels, one of a single one
        >>> means.result()
        array([3.])
    """

    def __init__(self, quantities: int, average: str) -> None:
        self.average = check_average(average)
        self._sums = np.zeros(quantities)
        self._weight = 0.0

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Counts one batch.

        Args:
            sums: sum over the valid pixels of each image and quantity ``[N, Q]``.
            counts: how many valid pixels each image has ``[N]``.
        """
        sums, counts = sums.detach().double().cpu(), counts.detach().cpu()
        if self.average == "images":
            self.add_values((sums / counts[:, None])[counts > 0].numpy())
            return
        total = int(counts.sum())
        if not total:
            return
        of_batch = sums.sum(0)
        if self.average == "pixels":
            self._sums += of_batch.numpy()
            self._weight += total
        else:
            self.add_values((of_batch / total)[None].numpy(), len(counts) if self.average == "weighted batches" else 1)

    def add_values(self, values: np.ndarray, weight: float = 1.0) -> None:
        """Counts values that are means already: one row per piece ``[n, Q]``, all with the same weight."""
        self._sums += weight * values.sum(0)
        self._weight += weight * len(values)

    def result(self) -> np.ndarray:
        """The means ``[Q]``. Raises InputError: there was no valid pixel."""
        if not self._weight:
            raise InputError("a summary was asked for before anything valid was added; add a batch that has a valid target")
        return self._sums / self._weight


def rows(tensor: Tensor) -> Tensor:
    """A batch as one row per image: ``[N, ...]`` → ``[N, pixels]``."""
    return torch.flatten(tensor, 1) if tensor.ndim > 1 else tensor[:, None]


class Evaluation:
    """Feeds each task's tally with a loader's batches; what a :class:`~equipoise.study.Problem` takes as ``evaluate``.

    Args:
        tallies: task → what makes its tally, afresh for each evaluation.
        outputs: ``outputs(model, batch)`` gives ``{task: (prediction, target)}``, or ``(prediction, target, valid)``; a
            batch may lack tasks.

    Attributes:
        metrics: all metrics in order, for the problem's ``metrics``.

    Raises:
        InputError: no tally.

    Example:
        >>> import torch
        >>> from equipoise.metrics import DepthTally, ErrorTally
        >>> def outputs(model, batch):
        ...     out = model(batch["x"])
        ...     return {"depth": (out[:, :1], batch["depth"]), "size": (out[:, 1], batch["size"])}
        >>> evaluation = Evaluation({"depth": DepthTally, "size": lambda: ErrorTally(unit="mm")}, outputs)
        >>> [metric.heading for metric in evaluation.metrics]
        ['depth absolute error ↓', 'depth relative error ↓', 'size error (mm) ↓']
        >>> batch = {"x": torch.ones(4, 2), "depth": torch.full((4, 1), 2.0), "size": torch.ones(4)}
        >>> evaluation(torch.nn.Identity(), [batch, batch])
        {'depth absolute error': 1.0, 'depth relative error': 0.5, 'size error': 0.0}
    """

    def __init__(
        self, tallies: Mapping[str, Callable[[], Tally]], outputs: Callable[[nn.Module, Any], Mapping[str, tuple[Tensor, ...]]]
    ) -> None:
        if not tallies:
            raise InputError("an evaluation needs at least one task with a tally")
        self.tallies = dict(tallies)
        self.outputs = outputs
        self.metrics: tuple[Metric, ...] = tuple(metric for task, make in tallies.items() for metric in make().metrics(task))

    def __call__(self, model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
        """Metric name → value over the whole loader.

        Raises:
            InputError: a task that no batch of the loader held, or one that has no tally.
        """
        tallies = {task: make() for task, make in self.tallies.items()}
        seen: set[str] = set()
        for batch in loader:
            for task, pair in self.outputs(model, batch).items():
                if task not in tallies:
                    raise UnknownTaskError(
                        f'the outputs hold the task "{task}", which has no tally.{near_misses(task, tallies)} '
                        f"There are: {', '.join(tallies)}"
                    )
                tallies[task].add(*pair)
                seen.add(task)
        for task in tallies:
            if task not in seen:
                raise InputError(f'no batch of the evaluation held the task "{task}"; every task must occur at least once')
        return {name: value for task, tally in tallies.items() for name, value in tally.values(task).items()}
