"""Losses over the processes that train together, so that all of them see the same numbers and decide alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.distributed import Processes
from equipoise.tasks import Tasks

__all__ = ["Array", "JointLosses"]

Array: TypeAlias = NDArray[np.float64]


class JointLosses:
    """Means of task losses over the processes.

    Args:
        tasks: all tasks.
        processes: those that train together.
        device: where messages between them lie.
    """

    def __init__(self, tasks: Tasks, processes: Processes, device: torch.device) -> None:
        self.tasks = tasks
        self.processes = processes
        self.device = device

    def means(self, evaluations: Sequence[Mapping[str, Tensor]]) -> tuple[Array, Array]:
        """The mean losses of several evaluations, each averaged over the processes that have the task.

        Args:
            evaluations: task → loss; the first one decides which tasks count as present here.

        Returns:
            ``[n, K]`` in float64, 0 for tasks that nobody has, and how many processes have each task, ``[K]``.
        """
        present = list(evaluations[0])
        positions = self.tasks.positions(present)
        stacked = torch.stack([evaluation[name].detach().double() for evaluation in evaluations for name in present])
        rows = stacked.view(len(evaluations), len(present))
        if self.processes.count == 1:
            values = np.zeros((len(evaluations), len(self.tasks)))
            values[:, positions] = rows.cpu().numpy()
            counts = np.zeros(len(self.tasks))
            counts[positions] = 1.0
            return values, counts
        message = torch.zeros(len(evaluations) + 1, len(self.tasks), dtype=torch.float64, device=self.device)
        message[:-1, positions] = rows.to(self.device)
        message[-1, positions] = 1.0
        summed = self.processes.sum(message).cpu().numpy()
        counts = summed[-1]
        return summed[:-1] / counts.clip(min=1.0), counts
