"""GradVac: gradient vaccine."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import random_orders, vaccinate
from equipoise.states import Anything, Maybe, Of

__all__ = ["GradVac"]


@register(
    "gradvac",
    summary="turns task gradients towards each other until their cosines are what they usually are, then sums",
    paper="Wang et al., Gradient Vaccine, ICLR 2021",
    price="K backward",
    promise="cosines between tasks are kept near their moving averages; starts as `pcgrad`",
    serves="many related tasks of one scale, whose gradients usually agree",
    caveats="random order; conflicts may remain; loud losses stay loud; remembers",
    adds_up_to="K or more, but for gradients that cancel",
    checked="equations on the vectors themselves, TorchJD",
)
class GradVac(GramianBalancer):
    """Turns each task gradient towards those with which its cosine is below a target, one after the other in random order.

    The target of a pair is a moving average of its cosines, φ̂ ← (1 − β) φ̂ + β φ, from 0 on (Wang et al., 2021, algorithm 1).
    The surgery is done on coefficients with the Gramian: see :func:`equipoise.solvers.vaccinate`. The paper's best variant
    keeps targets for each layer, which would need a Gramian for each; this is its variant for the whole model. A cosine that
    does not exist (a zero gradient, or one that has vanished on the way) leaves its target as it is, and so does a task that a
    batch lacks.

    **Mind.** The result depends on a random order, and conflicts may remain. Loud losses stay loud. It remembers, so start a
    fresh one for each training. The paper keeps averages per layer; here there is one for all shared parameters.

    Args:
        beta: β of the moving average; 0.01 as in the paper (LibMTL and TorchJD have 0.5).
        seed: of the balancer's own generator, which draws the orders. Under ``torch.distributed`` every process must use
            the same seed.

    Raises:
        InputError: β is not between 0 and 1.

    Example:
        >>> GradVac().weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
    """

    stateful: ClassVar = {"generator": Anything(), "targets": Maybe(Of(("K", "K"), least=-1, most=1, cpu=True))}

    def __init__(self, beta: float = 0.01, seed: int = 0) -> None:
        if not 0 <= beta <= 1:
            raise InputError(f"beta must be between 0 and 1; got {beta}")
        self.beta = float(beta)
        self.seed = seed
        self.generator = np.random.default_rng(seed)
        self.targets: Tensor | None = None
        self._met: NDArray[np.float64] | None = None
        self._here: list[int] | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present; :meth:`update` learns the cosines that were met."""
        observation.check_memory(self, self.targets)
        self._here = list(observation.present)
        try:
            return self.weights(observation.needed("gramian"))
        finally:
            self._here = None

    def update(self, observation: Observation) -> None:
        """Moves the targets of the tasks present towards the cosines of the last decision."""
        if self._met is None:
            return
        tasks, here = len(observation.tasks), np.array(observation.present)
        targets = np.zeros((tasks, tasks)) if self.targets is None else self.targets.numpy().copy()
        old = targets[here[:, None], here]
        met = np.where(np.isnan(self._met), old, self._met)
        targets[here[:, None], here] = (1.0 - self.beta) * old + self.beta * met
        self.targets = torch.from_numpy(targets)
        self._met = None

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.vaccinate`; draws new orders and learns nothing."""
        size = len(gramian)
        here = list(range(size)) if self._here is None else self._here
        targets = np.zeros((size, size))
        if self.targets is not None:
            if len(self.targets) < max(here) + 1 or (self._here is None and len(self.targets) != size):
                raise InputError(f"this GradVac has learned from {len(self.targets)} tasks; the Gramian is of {size}")
            targets = self.targets.numpy()[np.ix_(here, here)]
        weights, self._met = vaccinate(gramian, random_orders(size, self.generator), targets)
        return weights

    def __repr__(self) -> str:
        return f"GradVac(beta={self.beta}, seed={self.seed})"
