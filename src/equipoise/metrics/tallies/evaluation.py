"""Several tallies as one evaluation, such as a study's problem needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from equipoise.errors import InputError, UnknownTaskError, near_misses
from equipoise.metrics.metric import Metric
from equipoise.metrics.tallies.base import Tally

__all__ = ["Evaluation"]


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
        self,
        tallies: Mapping[str, Callable[[], Tally]],
        outputs: Callable[[nn.Module, Any], Mapping[str, tuple[Tensor, ...]]],
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
