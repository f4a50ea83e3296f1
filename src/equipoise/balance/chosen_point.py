"""Balancers that steer to a chosen point of the Pareto front: they look at the losses and at the Gramian."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equipoise.balance.base import Observation, as_numbers
from equipoise.balance.per_task import PreferenceBalancer
from equipoise.errors import InputError

__all__ = ["ChosenPointBalancer"]


class ChosenPointBalancer(PreferenceBalancer):
    """A balancer on losses and Gramian both, with a preference.

    Args:
        preference: one number per task, at least 0, in the tasks' order or by name; divided by the sum over the tasks present,
            equal if left out.

    Raises:
        InputError: negative, non-finite, or not one number per task.
    """

    def __init__(self, preference: Sequence[float] | Mapping[str, float] | None = None) -> None:
        super().__init__(preference)
        self._losses: NDArray[np.float64] | None = None

    @abstractmethod
    def at(
        self, losses: NDArray[np.float64], gramian: NDArray[np.float64], preference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Weights ``[k]`` from losses, Gramian and preferences of sum 1 of the same tasks."""

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        self._losses = observation.needed("losses").double().cpu().numpy()
        try:
            return super().decide(observation)
        finally:
            self._losses = None

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`at`."""
        size = len(gramian)
        preference = np.array(self.shares(*self._among(size)))
        return self.at(np.ones(size) if self._losses is None else self._losses, gramian, preference)

    def weights(self, gramian: Tensor | ArrayLike, losses: Tensor | ArrayLike | None = None) -> Tensor:
        """Weights of all tasks from the Gramian of their gradients and their losses ``[K]``, which count as 1 if left out.

        Raises:
            InputError: another number of losses, or see :meth:`~equipoise.balance.GramianBalancer.weights`.
        """
        if losses is None:
            return super().weights(gramian)
        self._losses = as_numbers(losses, "the losses", 1).double().cpu().numpy()
        try:
            if np.shape(gramian)[-1:] != self._losses.shape:
                raise InputError(f"{len(self._losses)} losses were given with a Gramian of shape {list(np.shape(gramian))}")
            return super().weights(gramian)
        finally:
            self._losses = None
