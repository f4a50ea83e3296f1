"""What a study trains, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from equipoise.errors import InputError, near_misses
from equipoise.metrics import Metric
from equipoise.objective import LossFunction
from equipoise.study.reported import BestEpoch, LastEpochs, Reported, Score

__all__ = ["Built", "Problem", "Splits", "adam"]

Built: TypeAlias = tuple[nn.Module, LossFunction] | tuple[nn.Module, LossFunction, torch.optim.Optimizer]


class Splits(NamedTuple):
    """The loaders of a problem: anything that can be iterated over again and again.

    A loader with a method ``set_epoch`` (such as :class:`equipoise.data.TensorBatches`) is told the epoch, counted from 0.

    Attributes:
        train: batches that the losses take.
        validation: batches that ``evaluate`` takes; ``None`` if there is no such split.
        test: batches that ``evaluate`` takes; the reported numbers are from here.
    """

    train: Iterable[Any]
    validation: Iterable[Any] | None
    test: Iterable[Any]


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """Adam with step size 1e-3 for all of the model's parameters."""
    return torch.optim.Adam(model.parameters(), lr=1e-3)


@dataclass(frozen=True)
class Problem:
    """Everything a study has to know about what is trained.

    Every run is a process of its own, which seeds torch, NumPy and ``random`` with the run's seed before it calls
    ``data`` and ``build``: what those functions draw is repeatable. Functions may be defined
    anywhere, also in a script or a notebook.

    Args:
        name: names the problem in tables, and the study's default folder.
        tasks: the tasks, in order.
        metrics: how the tasks are judged; each belongs to one of the tasks and knows its direction.
        build: ``build(seed) -> (model, losses)`` with ``losses(model, batch) -> {task: scalar tensor}``, or
            ``(model, losses, optimizer)``.
        data: ``data(seed) -> Splits(train, validation, test)``.
        evaluate: ``evaluate(model, loader) -> {metric: value}``, called in evaluation mode and without gradients (with
            them where it fails otherwise, for metrics such as errors of forces). For a single-task baseline only the metrics
            of its task are read.
        epochs: how long a run trains unless the study says otherwise.
        optimizer: ``optimizer(model)`` makes the optimizer where ``build`` does not; Adam at 1e-3 by default.
        schedule: ``schedule(optimizer)`` makes a learning-rate scheduler, which steps at the end of each epoch;
            ``ReduceLROnPlateau`` is given the ``score`` of the validation split.
        shared: ``shared(model)`` gives the shared parameters or module; left out, they are found from the graph.
        stepping: ``stepping(model)`` gives further arguments of :class:`~equipoise.MultiTaskOptimizer` by name, such as
            ``{"clip": 1.0}`` or ``{"features": model.encoder}``.
        parts: ``parts(model)`` gives ``{"features": module, "heads": {task: module}}``, the module whose output all tasks
            start from and the heads that it is given to, for methods that act between them (``rotograd``).
        targets: ``targets(batch)`` gives what each task's head is to say, as a mapping task → tensor, for methods that apply
            where the heads in ``parts`` are linear layers (``bayesagg-mtl``, which tells what the tensors are).
        reported: which epochs the reported numbers are from: :class:`~equipoise.study.LastEpochs`, the last one by default, or
            :class:`~equipoise.study.BestEpoch`.
        score: ``score(metrics)`` judges an evaluation by one number, lower is better; for ``BestEpoch`` and for schedulers that
            wait for a plateau. In a single-task baseline it is given the metrics of its task alone.
        recorded: ``recorded(model)`` gives further numbers by name, such as task positions; every epoch's record
            keeps them, and ``results.curve(method, "recorded", name)`` reads them.
        options: what else sets this problem apart from others of its name, as JSON values. A study's folder remembers
            them, so that results of different options are never mixed.
        preload: modules that ``build`` and ``data`` import and that take long; runs then start faster.

    Raises:
        InputError: no tasks, no metrics, a metric of an unknown task, or a name used twice.

    Example:
        >>> from equipoise.data import TensorBatches
        >>> rows = {"x": torch.randn(64, 3), "y": torch.randn(64, 2)}
        >>> def build(seed):
        ...     def losses(model, batch):
        ...         errors = (model(batch["x"]) - batch["y"]).square().mean(0)
        ...         return {"first": errors[0], "second": errors[1]}
        ...     return torch.nn.Linear(3, 2), losses
        >>> def data(seed):
        ...     return Splits(TensorBatches(rows, 16, shuffle=True, seed=seed), None, TensorBatches(rows, 64))
        >>> def evaluate(model, loader):
        ...     first, second = (torch.cat([model(b["x"]) - b["y"] for b in loader]).abs().mean(0)).tolist()
        ...     return {"first error": first, "second error": second}
        >>> metrics = [Metric(f"{task} error", task, higher_is_better=False) for task in ("first", "second")]
        >>> problem = Problem("lines", ["first", "second"], metrics, build, data, evaluate, epochs=3)
    """

    name: str
    tasks: tuple[str, ...]
    metrics: tuple[Metric, ...]
    build: Callable[[int], Built]
    data: Callable[[int], Splits | tuple[Iterable[Any], Iterable[Any] | None, Iterable[Any]]]
    evaluate: Callable[[nn.Module, Iterable[Any]], Mapping[str, float]]
    epochs: int = 20
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    shared: Callable[[nn.Module], Any] | None = None
    stepping: Callable[[nn.Module], Mapping[str, Any]] | None = None
    parts: Callable[[nn.Module], Mapping[str, Any]] | None = None
    targets: Callable[[Any], Mapping[str, torch.Tensor]] | None = None
    reported: Reported = field(default_factory=LastEpochs)
    score: Score | None = None
    recorded: Callable[[nn.Module], Mapping[str, float]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for sequence in ("tasks", "metrics", "preload"):
            object.__setattr__(self, sequence, tuple(getattr(self, sequence)))
        if not self.tasks:
            raise InputError(f'problem "{self.name}" has no tasks; name at least one')
        if not self.metrics:
            raise InputError(f'problem "{self.name}" has no metrics; give at least one, with its direction')
        for what, names in (("task", self.tasks), ("metric", tuple(metric.name for metric in self.metrics))):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(f'problem "{self.name}" names the {what} "{twice[0]}" twice; names must differ')
        for metric in self.metrics:
            if metric.task not in self.tasks:
                raise InputError(
                    f'metric "{metric.name}" belongs to task "{metric.task}", which problem "{self.name}" does not '
                    f"have.{near_misses(metric.task, self.tasks)} Its tasks: {', '.join(self.tasks)}"
                )
        if self.epochs < 1:
            raise InputError(f'problem "{self.name}" has epochs={self.epochs}; it must be at least 1')

    def metrics_of(self, task: str) -> tuple[Metric, ...]:
        """The metrics that judge one task."""
        return tuple(metric for metric in self.metrics if metric.task == task)

    def validated(self, validation: Mapping[str, float | None] | None) -> dict[str, float]:
        """A run's metrics on the validation split, by which something may be chosen; ``nan`` for what is no number.

        Raises:
            InputError: there is no such split, or the epoch that they are of was picked on the test split.
        """
        why = "a choice made on the test split would look better than it is"
        if validation is None:
            raise InputError(f'problem "{self.name}" has no validation split, and {why}; let its data give one')
        if self.reported == BestEpoch("test"):
            raise InputError(f'problem "{self.name}" reports the {self.reported.words}, and {why}; let it report BestEpoch()')
        return {name: math.nan if value is None else float(value) for name, value in validation.items()}

    def identity(self) -> dict[str, Any]:
        """What two problems must have in common for their results to stand in one folder, as JSON values."""
        return {
            "name": self.name,
            "tasks": list(self.tasks),
            "metrics": [
                {
                    "name": metric.name,
                    "task": metric.task,
                    "higher_is_better": metric.higher_is_better,
                    "unit": metric.unit,
                    "label": metric.label,
                }
                for metric in self.metrics
            ],
            "options": dict(self.options),
            # Left out where it is the default, so that folders of earlier versions are gone on with.
            **({"reported": self.reported.words} if self.reported != LastEpochs() else {}),
        }
