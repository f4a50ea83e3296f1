"""Where the losses of a step come from: from an objective and its batches, or from a caller who has them already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from equipoise.balance.mixins import Elsewhere
from equipoise.distributed import Processes
from equipoise.modes import not_compiled
from equipoise.objective import Objective
from equipoise.randomness import RandomState
from equipoise.step.seen import SeenLosses
from equipoise.tasks import Loss, scalar

__all__ = ["Batches", "FurtherBatch", "FurtherSource", "Given", "Source", "SubstitutedLosses"]


class Source(Protocol):
    """Gives the losses of a step, micro-batch by micro-batch."""

    @property
    def micro_batches(self) -> int:
        """How many micro-batches the step consists of."""

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """A micro-batch's losses, for the backward pass."""

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """The same losses without a trace: buffers stay as they are."""

    def rehearsal(self) -> AbstractContextManager[None]:
        """Puts the random state back after its body, so that the performance draws the same numbers."""

    def batch(self, micro_batch: int) -> Any:
        """What a micro-batch's losses are evaluated on; ``None`` where only the losses are known."""

    def elsewhere(self) -> Elsewhere | None:
        """Evaluates the losses at other parameters; ``None`` where only the losses are known."""


class FurtherSource(Source, Protocol):
    """Gives the losses on a further batch of a step, which leave no trace: buffers stay as they are."""

    def apart(self) -> AbstractContextManager[None]:
        """Runs its body, in which the losses are evaluated and differentiated, from a random state of its own.

        The present one is put back afterwards, so that the step's own batch draws the numbers that it would draw alone.
        """


class Batches:
    """The losses of an objective on the micro-batches of one step.

    Args:
        objective: model and losses.
        batches: the micro-batches.
        processes: those that train together.
    """

    def __init__(self, objective: Objective, batches: tuple[Any, ...], processes: Processes) -> None:
        self._objective = objective
        self._processes = processes
        self._batches = batches
        self.micro_batches = len(batches)

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """From the model as it is, whose buffers move."""
        return self._objective.pending(self._batches[micro_batch])

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """On copies of the buffers."""
        return self._objective.pending_at({}, self._batches[micro_batch])

    def rehearsal(self) -> AbstractContextManager[None]:
        """For every device that the model uses."""
        return self._objective.random_state().replayed()

    def batch(self, micro_batch: int) -> Any:
        """One of the micro-batches."""
        return self._batches[micro_batch]

    def elsewhere(self) -> Elsewhere:
        """On all micro-batches."""
        return SubstitutedLosses(self._objective, self._batches, self._processes)


class FurtherBatch(Batches):
    """The losses on a further batch, which leave no trace; its random numbers are independent of the others'.

    Args:
        objective: model and losses.
        batches: its micro-batches.
        processes: those that train together.
        place: which of the further batches it is, from 0.
    """

    def __init__(self, objective: Objective, batches: tuple[Any, ...], processes: Processes, place: int) -> None:
        super().__init__(objective, batches, processes)
        self._place = place
        self._buffers = next(objective.model.buffers(), None) is not None

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """On copies of the buffers, if there are any."""
        return self.rehearse(micro_batch) if self._buffers else super().losses(micro_batch)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """From a random state that follows from the present one and the batch's place."""
        # With buffers they are evaluated on copies of these, which compiled functions would take for a new model each time.
        with self._objective.random_state().apart(self._place), not_compiled() if self._buffers else nullcontext():
            yield


class Given:
    """Losses that a caller evaluated, or callables that evaluate them.

    Args:
        losses: by the names of their tasks.
    """

    micro_batches = 1

    def __init__(self, losses: dict[str, Loss]) -> None:
        self._losses = losses

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """As they were given."""
        return dict(self._losses)

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """The same."""
        return dict(self._losses)

    def rehearsal(self) -> AbstractContextManager[None]:
        """For every device that the losses lie on."""
        tensors = [loss for loss in self._losses.values() if isinstance(loss, Tensor)]
        return RandomState.capture(tensors).replayed()

    def apart(self) -> AbstractContextManager[None]:
        """Nothing to do: they are evaluated already."""
        return nullcontext()

    def batch(self, micro_batch: int) -> None:
        """Not known."""

    def elsewhere(self) -> None:
        """Not known."""


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
