"""NORMAL: an encoder, a flow, and one head per task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import nn

from equipoise.errors import InputError, near_misses
from equipoise.nets.normal.flow import TaskFlow

__all__ = ["NORMAL"]


class NORMAL(nn.Module):
    """Puts a :class:`TaskFlow` between an encoder and its heads: task i gets h_i(z(p_i)), z(0) the encoder's output (eq. 5.6).

    Args:
        encoder: any module whose output is one tensor.
        flow: how its output turns into the tasks' features.
        heads: task → module; the tasks of the flow, in any order.

    Raises:
        InputError: a part of the wrong kind, or heads of other tasks than the flow's.

    Example:
        >>> import torch
        >>> flow = TaskFlow.for_vectors(["depth", "label"], 16)
        >>> model = NORMAL(nn.Linear(8, 16), flow, {"depth": nn.Linear(16, 1), "label": nn.Linear(16, 4)})
        >>> {task: tuple(out.shape) for task, out in model(torch.randn(5, 8)).items()}
        {'depth': (5, 1), 'label': (5, 4)}
        >>> list(model(torch.randn(5, 8), tasks=["label"]))
        ['label']
    """

    def __init__(self, encoder: nn.Module, flow: TaskFlow, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InputError(f"encoder must be a torch.nn.Module; got {type(encoder).__name__}")
        if not isinstance(flow, TaskFlow):
            raise InputError(f"flow must be a TaskFlow; got {type(flow).__name__}")
        if not isinstance(heads, Mapping | nn.ModuleDict):
            raise InputError(f"heads must be a mapping task → module; got {type(heads).__name__}")
        for task, head in heads.items():
            if task not in flow.tasks:
                raise InputError(
                    f'there is a head for task "{task}", which the flow does not have.{near_misses(str(task), flow.tasks)} '
                    f"Its tasks: {', '.join(flow.tasks)}"
                )
            if not isinstance(head, nn.Module):
                raise InputError(f'the head of task "{task}" must be a torch.nn.Module; got {type(head).__name__}')
        missing = [task for task in flow.tasks if task not in heads]
        if missing:
            raise InputError(f'there is no head for task "{missing[0]}" of the flow')
        self.encoder = encoder
        self.flow = flow
        try:
            self.heads = nn.ModuleDict({task: heads[task] for task in flow.tasks})
        except KeyError as error:
            raise InputError(f"torch cannot give a module the name of this task ({error}); rename the task") from None

    def forward(self, *inputs: Any, tasks: Iterable[str] | None = None) -> dict[str, Any]:
        """Computes the tasks' outputs.

        Args:
            *inputs: what the encoder takes.
            tasks: of which tasks; all of them if left out. Where tasks have inputs of their own, one call per task.

        Returns:
            What each task's head gives, by task.

        Raises:
            UnknownTaskError: a task that has no position.
            InputError: see :class:`TaskFlow`.
        """
        features = self.flow(self.encoder(*inputs), tasks)
        return {task: self.heads[task](z) for task, z in features.items()}

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder and of the flow's equation: all but those of positions and heads.

        :class:`~equipoise.MultiTaskOptimizer` finds them by itself; pass them to ``eq.backward`` as ``shared=``.
        """
        return chain(self.encoder.parameters(), self.flow.dynamics.parameters())
