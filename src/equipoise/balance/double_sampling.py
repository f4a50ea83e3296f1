"""What the methods with double sampling have in common: shares that move by the Gramian between two independent batches."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.errors import InputError
from equipoise.states import Maybe, Of

__all__ = ["CrossObservation", "DoubleSampling", "further_batches"]


@dataclass(frozen=True, kw_only=True)
class CrossObservation(Observation):
    """What a balancer with double sampling decides on.

    Attributes:
        cross: ``G(z₁) G(z₂)ᵀ [c, c]`` in float64 on the CPU, the products of the task gradients on the two further batches, for
            the tasks ``crossed``.
        crossed: positions of the c tasks that both further batches hold, ascending.
    """

    cross: Tensor
    crossed: tuple[int, ...]


class DoubleSampling(GramianBalancer):
    """Keeps shares on the simplex and moves them by A = G(z₁) G(z₂)ᵀ of the two further batches of a step.

    The Gramian of one batch is a biased estimate of that of the expected gradients: the noise's variance is on its diagonal.
    Independent batches have independent noise, so A is right on average.

    Derived classes say how they :meth:`move <moved>` and what weights they :meth:`give <given>`. Where the further batches
    lack tasks, those that both of them hold are moved and keep the share that they had together; where the step's own batch
    does, those present keep their weights, as in :class:`~equipoise.MoCo`.

    Attributes:
        further: how many independent batches it looks at beside the step's own. They come from the objective's ``batches`` or
            are given to ``step``.
    """

    further: ClassVar[int] = 2
    stateful: ClassVar = {"shares": Maybe(Of(("K",), least=0, most=1, cpu=True))}

    def __init__(self) -> None:
        self.shares: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Moves the shares of the tasks that the further batches hold, and gives the weights of those present."""
        if not isinstance(observation, CrossObservation):
            raise InputError(f"{type(self).__name__} moves by two further batches; the observation has no cross-Gramian")
        observation.check_memory(self, self.shares)
        if self.shares is None:
            self.shares = torch.full((len(observation.tasks),), 1.0 / len(observation.tasks), dtype=torch.float64, device="cpu")
        met = list(observation.crossed)
        together = float(self.shares[met].sum())
        if together > 0:
            after = self.moved(self.shares[met].numpy() / together, observation.cross.numpy())
            self.shares = self.shares.index_copy(0, torch.tensor(met, device="cpu"), together * torch.from_numpy(after))
        return observation.of_present(torch.from_numpy(self.given(self.shares.numpy())))

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first step's weights where the gradients are without noise; a training's memory plays no part."""
        return self.given(self.moved(np.full(len(gramian), 1.0 / len(gramian)), gramian))

    @abstractmethod
    def moved(self, shares: NDArray[np.float64], cross: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares ``[k]`` after a step, from those before and G(z₁) G(z₂)ᵀ ``[k, k]``."""

    def given(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights that shares stand for."""
        return shares


def further_batches(balancer: object) -> int:
    """How many further batches a balancer looks at in a step."""
    return balancer.further if isinstance(balancer, DoubleSampling) else 0
