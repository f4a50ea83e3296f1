"""How often tasks pull against each other, counted over steps from the Gramian of the task gradients.

Everything about conflict is in ``Q = G Gᵀ``: with ``g₀`` the mean gradient, ``‖g_i‖² = Q_ii``,
``g_i·g₀ = mean_j Q_ij`` and ``‖g₀‖² = mean_ij Q_ij``. Task i conflicts in a step when ``cos(g_i, g₀) < 0``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers import pareto_distance, read_array

__all__ = ["ConflictTally"]


class ConflictTally:
    """Counts conflicts over the steps of an epoch; each task is counted over the steps in which it was present.

    Args:
        tasks: names of all tasks, in their fixed order.

    Example:
        >>> tally = ConflictTally(["left", "ink"])
        >>> tally.add([[4.0, -1.0], [-1.0, 0.5]])
        >>> summary = tally.summary()
        >>> summary["any"], summary["smallest"], summary["tasks"]["left"]["conflicts"]
        (1.0, 1.0, 0.0)
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._steps = 0
        self._any = 0
        self._smallest = 0
        self._pareto = 0.0
        zeros = np.zeros(len(self.tasks))
        self._seen, self._conflicts, self._cosines, self._norms = (zeros.copy() for _ in range(4))
        self._pairs, self._together = (np.zeros((len(self.tasks), len(self.tasks))) for _ in range(2))

    def add(self, gramian: ArrayLike, present: Sequence[str] | None = None) -> None:
        """Counts one step.

        Args:
            gramian: inner products of the task gradients ``[k, k]``; one that is not finite has no cosines and is left out.
            present: names of the k tasks in its order; left out, all tasks.

        Raises:
            InputError: the matrix does not fit the tasks.
        """
        names = self.tasks if present is None else tuple(present)
        q = read_array(gramian, "the Gramian")
        if q.shape != (len(names), len(names)) or not set(names) <= set(self.tasks):
            raise InputError(f"a Gramian of shape {q.shape} does not fit the tasks {names} out of {self.tasks}")
        if not names or not np.isfinite(q).all():
            return
        largest = float(np.abs(q).max())
        unit = 1.0
        if largest and not 1e-100 < largest < 1e100:  # squares and sums of what follows would over- or underflow
            unit = math.ldexp(1.0, math.frexp(largest)[1] - 1)
            q = q / unit
        rows = np.array([self.tasks.index(name) for name in names])
        norms = np.sqrt(np.diag(q).clip(min=0.0))
        products = q.mean(axis=1)
        scale = norms * np.sqrt(max(q.mean(), 0.0))
        # A zero gradient conflicts with nothing: its cosine counts as 0.
        cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0).clip(-1.0, 1.0)
        conflicts = cosines < 0

        self._steps += 1
        self._any += bool(conflicts.any())
        self._smallest += bool(conflicts[norms.argmin()])
        self._pareto += pareto_distance(q)
        self._seen[rows] += 1
        self._conflicts[rows] += conflicts
        self._cosines[rows] += cosines
        self._norms[rows] += norms * math.sqrt(unit)
        sizes = np.outer(norms, norms)
        fields = np.ix_(rows, rows)
        self._pairs[fields] += np.divide(q, sizes, out=np.zeros_like(q), where=sizes > 0).clip(-1.0, 1.0)
        self._together[fields] += 1

    def summary(self) -> dict[str, Any] | None:
        """What was counted, as plain numbers; ``None`` if there was no step.

        Returns:
            ``steps``: how many were counted; ``any``: the share of them in which at least one task conflicted with
            the mean gradient; ``smallest``: the share in which the task with the smallest gradient norm did, which is
            what triggers COST (eq. 3); ``pareto``: the mean distance from Pareto stationarity, relative as in
            :func:`equipoise.solvers.pareto_distance`; ``tasks``: for each task that was seen, over the steps in which it was,
            ``conflicts`` (the share in which it conflicted), ``cosine`` (its mean cosine with the mean gradient) and
            ``norm`` (its mean norm); ``cosines``: mean cosines between the tasks' gradients ``[K, K]``, ``None`` for two tasks
            that were never in one step.
        """
        if not self._steps:
            return None
        return {
            "steps": self._steps,
            "any": self._any / self._steps,
            "smallest": self._smallest / self._steps,
            "pareto": self._pareto / self._steps,
            "cosines": [
                [round(float(total / count), 4) if count else None for total, count in zip(*row, strict=True)]
                for row in zip(self._pairs, self._together, strict=True)
            ],
            "tasks": {
                task: {
                    "conflicts": float(self._conflicts[row] / self._seen[row]),
                    "cosine": float(self._cosines[row] / self._seen[row]),
                    "norm": float(self._norms[row] / self._seen[row]),
                }
                for row, task in enumerate(self.tasks)
                if self._seen[row]
            },
        }
