"""The losses of a step at other parameters, for balancers that look further than the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.distributed import Processes
from equipoise.objective import Objective
from equipoise.step.seen import SeenLosses
from equipoise.tasks import scalar

__all__ = ["SubstitutedLosses"]


class SubstitutedLosses:
    """Evaluates an objective on the micro-batches of one step, at substituted parameters.

    Args:
        objective: model and losses.
        batches: the micro-batches; the graphs of all of them live until the result is differentiated.
        processes: those that train together.
    """

    def __init__(self, objective: Objective, batches: tuple[Any, ...], processes: Processes) -> None:
        self._objective = objective
        self._batches = batches
        self._processes = processes

    def parameters(self) -> dict[str, Tensor]:
        """The model's parameters that are trained, by name."""
        return {name: own for name, own in self._objective.model.named_parameters() if own.requires_grad}

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Means over the micro-batches ``[k]``, from the random state of now, which stays as it is."""
        seen = SeenLosses()
        with self._objective.random_state().replayed():
            for batch in self._batches:
                losses = self._objective.pending_at(parameters, batch)
                for position, name in zip(self._objective.tasks.positions(losses), losses, strict=True):
                    seen.add(position, scalar(name, losses[name], differentiable=torch.is_grad_enabled()), attached=True)
        return seen.means()

    def average(self, values: Tensor) -> Tensor:
        """Means over the processes."""
        return values if self._processes.count == 1 else self._processes.sum(values.clone()) / self._processes.count
