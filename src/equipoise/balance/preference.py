"""Preferences: how much each task counts, for the methods that combine gradients after having changed them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.errors import InputError, near_misses

__all__ = ["PreferenceBalancer"]


class PreferenceBalancer(GramianBalancer):
    """A balancer on the Gramian in which tasks can count more or less.

    Args:
        preference: one number per task, at least 0, in the tasks' order or by name; equal ones if left out, see ``usual``.
            A batch that lacks tasks uses the numbers of those it holds, as they are.

    Raises:
        InputError: negative, non-finite, or not one number per task.
    """

    usual = "mean"
    """What is taken where no preference is given: ``"mean"`` is 1/k for each of k tasks, ``"sum"`` is 1."""

    def __init__(self, preference: Sequence[float] | Mapping[str, float] | None = None) -> None:
        self._by_name = {str(k): float(v) for k, v in preference.items()} if isinstance(preference, Mapping) else None
        self._in_order = [float(v) for v in preference] if preference is not None and self._by_name is None else None
        values = list((self._by_name or {}).values()) + (self._in_order or [])
        if any(not 0 <= value < float("inf") for value in values):
            raise InputError(f"preference must be finite and at least 0; got {values}")
        self._present: tuple[tuple[str, ...], tuple[int, ...]] | None = None

    @abstractmethod
    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights ``[k]`` from the Gramian and the preferences of the same tasks."""

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present, with their preferences."""
        assert observation.gramian is not None
        self._present = (observation.tasks, observation.present)
        try:
            return self.weights(observation.gramian)
        finally:
            self._present = None

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights from one Gramian; of all tasks, unless a step says which are present."""
        return self.combine(gramian, self._preference(len(gramian)))

    def weights(self, gramian: Tensor) -> Tensor:
        """See :meth:`~equipoise.balance.GramianBalancer.weights`; here the Gramian is that of all tasks."""
        return super().weights(gramian)

    def _preference(self, size: int) -> NDArray[np.float64]:
        if self._by_name is None and self._in_order is None:
            return np.full(size, 1.0 / size if self.usual == "mean" else 1.0)
        if self._by_name is not None:
            if self._present is None:
                raise InputError("preferences given by name need the tasks' names; use the balancer in a step")
            tasks, present = self._present
            for name in self._by_name:
                if name not in tasks:
                    raise InputError(
                        f'a preference was given for task "{name}", which does not exist.{near_misses(name, tasks)}'
                    )
            missing = [name for name in tasks if name not in self._by_name]
            if missing:
                raise InputError(f"no preference was given for {', '.join(missing)}; give one for every task")
            return np.array([self._by_name[tasks[position]] for position in present])
        assert self._in_order is not None
        tasks, present = self._present or ((), tuple(range(size)))
        total = len(tasks) or size
        if len(self._in_order) != total:
            raise InputError(f"{len(self._in_order)} preferences were given for {total} tasks; give one for every task")
        return np.array([self._in_order[position] for position in present])

    def _options(self) -> list[str]:
        given = self._by_name if self._by_name is not None else self._in_order
        return [] if given is None else [f"preference={given}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._options())})"
