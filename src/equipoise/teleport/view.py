"""A look at a point: losses and Gramian on a few batches, without a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import EquipoiseError, InputError, NonFiniteError
from equipoise.objective import Objective
from equipoise.randomness import RandomState
from equipoise.teleport.joint import Array, JointLosses

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["View", "evaluated", "look"]


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


def evaluated(objective: Objective, batch: Any, random_state: RandomState) -> dict[str, Tensor]:
    """The losses of a probe batch at the model's own parameters, without a trace.

    Raises:
        InputError: the loss function cannot take the batch.
    """
    try:
        with torch.no_grad():
            return objective.at({}, batch, random_state=random_state)
    except (EquipoiseError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"a probe batch does not fit the loss function ({type(error).__name__}: {error}); the probe must give batches "
            f"such as those that step() gets"
        ) from error


def look(mtl: MultiTaskOptimizer, batches: Sequence[Any], joint: JointLosses) -> View:
    """Losses and Gramian at the model's present parameters.

    Args:
        mtl: whose objective and whose way to a Gramian are used.
        batches: one or several.
        joint: averages losses over processes.
    """
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
