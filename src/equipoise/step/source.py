"""Where the losses of a step come from: from an objective and its batches, or from a caller who has them already."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from equipoise.balance.mixins import Elsewhere
from equipoise.distributed import Processes
from equipoise.modes import not_compiled
from equipoise.modules import RunningStatistics
from equipoise.objective import Objective
from equipoise.randomness import RandomState
from equipoise.step.beside import Beside
from equipoise.step.seen import SeenLosses
from equipoise.tasks import Loss, scalar

__all__ = ["Batches", "FurtherBatch", "FurtherSource", "Given", "Repeated", "Source", "SubstitutedLosses"]


class Source(Protocol):
    """Gives the losses of a step, micro-batch by micro-batch."""

    @property
    def micro_batches(self) -> int:
        """How many micro-batches the step consists of."""

    @property
    def unlabelled(self) -> set[int]:
        """Those of the micro-batches evaluated so far that held no task's loss."""

    @property
    def collected(self) -> bool:
        """Whether micro-batches were evaluated by a caller, so that their graphs serve once."""

    @property
    def beside(self) -> Beside | None:
        """What takes care of losses with fixed weights, where there are some."""

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
        only: names of the tasks whose losses count, where not all do; the others' are left out as if they were not there.
    """

    collected = False

    def __init__(
        self, objective: Objective, batches: tuple[Any, ...], processes: Processes, only: Container[str] | None = None
    ) -> None:
        self._only = only
        self._objective = objective
        self._processes = processes
        self._batches = batches
        self.micro_batches = len(batches)
        self.unlabelled: set[int] = set()
        self.beside = Beside(objective.fixed, len(batches)) if objective.fixed else None

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """From the model as it is, whose buffers move."""
        losses = self._objective.pending(self._batches[micro_batch], fixed=self.beside is not None)
        return self._noted(micro_batch, losses if self.beside is None else self.beside.take(micro_batch, losses))

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """On copies of the buffers."""
        return self._noted(micro_batch, self._objective.pending_at({}, self._batches[micro_batch]))

    def _noted(self, micro_batch: int, losses: dict[str, Loss]) -> dict[str, Loss]:
        if not losses:
            self.unlabelled.add(micro_batch)
        return _among(losses, self._only)

    def rehearsal(self) -> AbstractContextManager[None]:
        """For every device that the model uses."""
        return self._objective.random_state().replayed()

    def batch(self, micro_batch: int) -> Any:
        """One of the micro-batches."""
        return self._batches[micro_batch]

    def random_state(self) -> RandomState:
        """Of every device that the model uses."""
        return self._objective.random_state()

    def at(self, micro_batch: int, parameters: Mapping[str, Tensor], random_state: RandomState) -> dict[str, Loss]:
        """At substituted parameters, from a random state; buffers stay as they are."""
        return self._objective.pending_at(parameters, self._batches[micro_batch], random_state=random_state)

    def elsewhere(self) -> Elsewhere:
        """On all micro-batches."""
        return SubstitutedLosses(self._objective, self._batches, self._processes, self._only)


class Repeated(Batches):
    """The losses of a step once more, which leave no trace: buffers stay as they are.

    Args:
        objective: model and losses.
        batches: the micro-batches.
        processes: those that train together.
        only: as for :class:`Batches`.
    """

    def __init__(
        self, objective: Objective, batches: tuple[Any, ...], processes: Processes, only: Container[str] | None = None
    ) -> None:
        super().__init__(objective, batches, processes, only)
        self._buffers = next(objective.model.buffers(), None) is not None

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """On copies of the buffers, if there are any."""
        if not self._buffers:
            return super().losses(micro_batch)
        losses = self._objective.pending_at({}, self._batches[micro_batch], fixed=self.beside is not None)
        return self._noted(micro_batch, losses if self.beside is None else self.beside.take(micro_batch, losses))

    def compiled_or_not(self) -> AbstractContextManager[object]:
        """Compiled functions would take each copy of the buffers for a new model."""
        return not_compiled() if self._buffers else nullcontext()


class FurtherBatch(Repeated):
    """The losses on a further batch, which leave no trace; its random numbers are independent of the others'.

    Args:
        objective: model and losses.
        batches: its micro-batches.
        processes: those that train together.
        place: which of the further batches it is, from 0.
        only: as for :class:`Batches`.
    """

    def __init__(
        self,
        objective: Objective,
        batches: tuple[Any, ...],
        processes: Processes,
        place: int,
        only: Container[str] | None = None,
    ) -> None:
        super().__init__(objective, batches, processes, only)
        self._place = place
        self.beside = None  # the step's own batch alone has them

    @contextmanager
    def apart(self) -> Iterator[None]:
        """From a random state that follows from the present one and the batch's place."""
        with self._objective.random_state().apart(self._place), self.compiled_or_not():
            yield


class Given:
    """Losses that a caller evaluated, or callables that evaluate them.

    Args:
        micro_batches: each the losses by the names of their tasks, or a function that gives them.
        model: whose running statistics are to move once where a micro-batch is evaluated twice.
        fixed: the weights of losses that are not balanced, by name.
    """

    def __init__(
        self,
        *micro_batches: dict[str, Loss] | Callable[[], dict[str, Loss]],
        model: nn.Module | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        self.beside = Beside(fixed, len(micro_batches)) if fixed else None
        self._parts = micro_batches
        self.micro_batches = len(micro_batches)
        self.collected = self.micro_batches > 1
        self.unlabelled: set[int] = set()
        self._statistics = None if model is None else RunningStatistics(model)

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """As they were given."""
        part = self._parts[micro_batch]
        losses = dict(part) if isinstance(part, dict) else part()
        if self.beside is not None:
            losses = self.beside.take(micro_batch, losses)
        if not losses:
            self.unlabelled.add(micro_batch)
        return losses

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """The same."""
        if self._statistics is None or isinstance(self._parts[micro_batch], dict):
            return self.losses(micro_batch)
        self._statistics.keep()
        try:
            return self.losses(micro_batch)
        finally:
            self._statistics.restore()

    def tensors(self) -> list[Tensor]:
        """The losses that are evaluated already."""
        parts = [part for part in self._parts if isinstance(part, dict)]
        return [loss for part in parts for loss in part.values() if isinstance(loss, Tensor)]

    def new_callables(self, known: Container[str]) -> bool:
        """Whether there are callables of tasks that are not known, or whole micro-batches that are yet to come."""
        parts = (part.items() if isinstance(part, dict) else (("", part),) for part in self._parts)
        return any(not isinstance(loss, Tensor) and name not in known for losses in parts for name, loss in losses)

    def random_state(self) -> RandomState:
        """Of the CPU, of every device that the losses lie on, and of the present CUDA device where they are yet to come."""
        on = self.tensors()
        if len(on) < len(self._parts) and torch.cuda.is_available() and torch.cuda.is_initialized():
            on.append(torch.empty(0, device="cuda"))
        return RandomState.capture(on)

    def rehearsal(self) -> AbstractContextManager[None]:
        """From the random state of now."""
        return self.random_state().replayed()

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
        only: as for :class:`Batches`.
    """

    def __init__(
        self, objective: Objective, batches: tuple[Any, ...], processes: Processes, only: Container[str] | None = None
    ) -> None:
        self._objective = objective
        self._batches = batches
        self._processes = processes
        self._only = only

    def parameters(self) -> dict[str, Tensor]:
        """The model's parameters that are trained, by name."""
        return {name: own for name, own in self._objective.model.named_parameters() if own.requires_grad}

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Means over the micro-batches ``[k]``, from the random state of now, which stays as it is."""
        seen = SeenLosses()
        with self._objective.random_state().replayed():
            for batch in self._batches:
                losses = _among(self._objective.pending_at(parameters, batch), self._only)
                for position, name in zip(self._objective.tasks.positions(losses), losses, strict=True):
                    seen.add(position, scalar(name, losses[name], differentiable=torch.is_grad_enabled()), attached=True)
        return seen.means()

    def average(self, values: Tensor) -> Tensor:
        """Means over the processes."""
        return values if self._processes.count == 1 else self._processes.sum(values.clone()) / self._processes.count


def _among(losses: dict[str, Loss], only: Container[str] | None) -> dict[str, Loss]:
    return losses if only is None else {name: loss for name, loss in losses.items() if name in only}
