"""What is measured at a point: losses and Gramian on a few batches, over all processes, without a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.distributed import Processes
from equipoise.errors import EquipoiseError, InputError, NonFiniteError
from equipoise.objective import Objective
from equipoise.randomness import RandomState
from equipoise.states import Form, Maybe, Of, read_state
from equipoise.step.report import StepReport
from equipoise.tasks import Tasks

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["SMALLEST_SIZE", "Array", "JointLosses", "LossSizes", "View", "evaluated", "look", "seen_in"]

Array: TypeAlias = NDArray[np.float64]
SMALLEST_SIZE = 1e-3
"""A loss close to zero is divided by this share of the largest it ever was, not by itself."""
_TINY = 1e-30


class LossSizes:
    """What losses are divided by, so that γ and a tolerance mean the same for large and for small ones.

    Remembers the largest loss of each task.
    """

    kinds: ClassVar[dict[str, Form]] = {"largest": Maybe(Of(("K",), least=0, cpu=True))}

    def __init__(self, relative: bool) -> None:
        self.relative = relative
        self._largest: Array | None = None

    def __call__(self, losses: Array) -> Array:
        """Sizes ``[K]`` of losses ``[K]``; a task that is not there has the loss 0.

        Example:
            >>> sizes = LossSizes(relative=True)
            >>> sizes(np.array([2.0, -8.0])).tolist(), sizes(np.array([0.0, 4.0])).tolist()
            ([2.0, 8.0], [0.002, 4.0])
        """
        sizes = self.of(losses)
        return sizes if self.relative else np.ones_like(losses)

    def of(self, losses: Array) -> Array:
        """Sizes ``[K]``, whether losses are divided by them or not."""
        own = np.abs(losses)
        # One loss that was not finite must not stay the measure of all that follow.
        seen = np.where(np.isfinite(own), own, 0.0)
        if self._largest is None or len(self._largest) != len(own):
            self._largest = np.zeros_like(own)
        self._largest = np.maximum(self._largest, seen)
        return np.maximum(own, SMALLEST_SIZE * self._largest).clip(min=_TINY)

    def kept(self) -> Array | None:
        """What is remembered now, for :meth:`take_back`."""
        return self._largest  # it is never changed in place

    def take_back(self, largest: Array | None) -> None:
        """Remembers again what :meth:`kept` gave."""
        self._largest = largest

    def state_dict(self) -> dict[str, Any]:
        """What was remembered."""
        return {"largest": None if self._largest is None else torch.from_numpy(self._largest.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from there. Raises InputError: these are no sizes."""
        largest = read_state("COST's sizes", state, self.kinds)["largest"]
        self._largest = None if largest is None else largest.numpy().copy()


class JointLosses:
    """Means of task losses over the processes that train together, so that all of them see the same numbers."""

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
        summed = self.processes.sum(message, "losses of a teleport").cpu().numpy()
        counts = summed[-1]
        return summed[:-1] / counts.clip(min=1.0), counts


@dataclass(frozen=True)
class View:
    """What there is to see at one point.

    Attributes:
        names: the tasks that the batches hold.
        losses: their mean losses ``[k]``.
        all_losses: the same as ``[K]``, 0 for tasks that are not there.
        gramian: inner products of the task gradients ``[k, k]``; ``None`` where something is not finite.
    """

    names: tuple[str, ...]
    losses: Array
    all_losses: Array
    gramian: Array | None


def seen_in(mtl: MultiTaskOptimizer, report: StepReport, batches: Sequence[Any]) -> View:
    """What a step has evaluated at the model's present parameters; where its balancer forms no Gramian, one is formed."""
    positions = mtl.objective.tasks.positions(report.tasks)
    losses = report.losses.detach().double().cpu().numpy()
    everywhere = np.zeros(len(mtl.objective.tasks))
    everywhere[positions] = losses
    gramian: Array | None = None
    try:
        found = mtl.gramian(*batches) if report.gramian is None else report.gramian
        gramian = found.numpy() if bool(torch.isfinite(found).all()) else None
    except NonFiniteError:
        pass
    return View(report.tasks, losses, everywhere, gramian)


def evaluated(objective: Objective, batch: Any, random_state: RandomState) -> dict[str, Tensor]:
    """The losses of a probe batch at the model's own parameters, without a trace.

    Raises:
        InputError: the loss function cannot take the batch.
    """
    try:
        return objective.values({}, batch, random_state=random_state)
    except (EquipoiseError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"a probe batch does not fit the loss function ({type(error).__name__}: {error}); the probe must give batches "
            f"such as those that step() gets"
        ) from error


def look(mtl: MultiTaskOptimizer, batches: Sequence[Any], joint: JointLosses) -> View:
    """Losses and Gramian at the model's present parameters."""
    seen = [joint.means([evaluated(mtl.objective, batch, mtl.objective.random_state())]) for batch in batches]
    torch.clear_autocast_cache()
    present = np.stack([counts for _, counts in seen]).clip(max=1.0)
    sums: Array = np.stack([values[0] for values, _ in seen]).sum(0)
    means = sums / present.sum(0).clip(min=1.0)
    held = present.sum(0) > 0
    names = tuple(name for name, there in zip(mtl.objective.tasks.names, held.tolist(), strict=True) if there)
    gramian: Array | None = None
    # All processes see the same losses, so that none of them is left waiting for the others' gradients.
    if np.isfinite(means).all():
        try:
            gramian = mtl.gramian(*batches).numpy()
        except NonFiniteError:
            gramian = None
        if gramian is not None and not np.isfinite(gramian).all():
            gramian = None
    return View(names, means[held], means, gramian)
