"""Task weights, training losses and validation losses as a problem of two levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.errors import InputError, UnknownTaskError
from equipoise.objective import Objective
from equipoise.step.checking import check_losses
from equipoise.tasks import as_losses, scalar

__all__ = ["WeightProblem"]


class WeightProblem(BilevelProblem):
    """min over α of (ℓ_1(ω*; validation), …, ℓ_K(ω*; validation)), ω* minimising Σ α_i ℓ_i(ω; training) (thesis, eq. 3.2).

    α = softmax(a), so that the weights stay on the simplex; ω are the model's parameters that require gradients.

    Args:
        objective: model and losses; its tasks must be known.
        free: a ``[K]``, the upper-level variable.
        raw: the weights are a itself.

    Attributes:
        objective: as given.
        first: the training losses of the first evaluation since :meth:`begin`, by task, detached; solvers start warm, so
            they are those of the present ω.
    """

    def __init__(self, objective: Objective, free: Tensor, *, raw: bool = False) -> None:
        self.objective = objective
        self.raw = raw
        self.first: dict[str, Tensor] | None = None
        self._step = 0
        super().__init__(self._training, self._validation, (free, objective.model), objectives=objective.tasks.names)

    def begin(self, step: int) -> None:
        """Says that a step with this index begins."""
        self.first = None
        self._step = step

    def weights(self, free: Tensor) -> Tensor:
        """α ``[K]`` of a."""
        return free if self.raw else torch.softmax(free, 0)

    @property
    def present_weights(self) -> Tensor:
        """α ``[K]`` of the present a, detached."""
        return self.weights(self.upper_variables.tensors[0].detach())

    def losses_at(self, point: Point, batch: Any) -> dict[str, Tensor]:
        """The losses of the tasks that a training batch holds, at a point."""
        found: dict[str, Tensor] = self._play(lambda free, model, batch: self._training_losses(model, batch), point, batch)
        return found

    def _training(self, free: Tensor, model: Any, batch: Any) -> Tensor:
        losses = self._training_losses(model, batch)
        weights = self.weights(free)
        positions = self.objective.tasks.positions(losses)
        # Of a batch that lacks tasks, those present count as they would in the sum over all.
        return torch.stack(
            [weights[position].to(loss) * loss for position, loss in zip(positions, losses.values(), strict=True)]
        ).sum()

    def _training_losses(self, model: Any, batch: Any) -> dict[str, Tensor]:
        losses = self._losses(model, batch)
        if self.first is None:
            self.first = {name: loss.detach() for name, loss in losses.items()}
            check_losses(torch.stack(list(self.first.values())), tuple(losses), self._step)
        return losses

    def _validation(self, free: Tensor, model: Any, batch: Any) -> Mapping[str, Tensor]:
        losses = self._losses(model, batch)
        missing = [name for name in self.objective.tasks.names if name not in losses]
        if missing:
            raise InputError(
                f"the validation batch lacks the task{'s' * (len(missing) > 1)} {', '.join(missing)}; weights are learned "
                f"from the validation losses of all tasks at once, so every validation batch has to hold all of them "
                f"(training batches need not)"
            )
        return losses

    def _losses(self, model: Any, batch: Any) -> dict[str, Tensor]:
        tasks = self.objective.tasks.names
        losses = as_losses(self.objective.losses(model, batch), tasks)
        unknown = [name for name in losses if name not in tasks]
        if unknown:
            raise UnknownTaskError(f'task "{unknown[0]}" is unknown; the tasks are fixed as {", ".join(tasks)}')
        return {name: scalar(name, losses[name], differentiable=False) for name in tasks if name in losses}
