"""Nash-MTL: multi-task learning as a bargaining game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import Need, Observation, clipped, norm_bound
from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import nash_bargaining
from equipoise.states import Maybe, Of, Whole

__all__ = ["NashMTL"]


@register(
    "nash-mtl",
    summary="the tasks' Nash bargaining solution: the same direction whatever the scale of each loss",
    paper="Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022",
    aliases=("nash", "nashmtl"),
    price="K backward; less with `update_every`",
    promise="every loss decreases to first order; the direction does not depend on the units of a loss",
    serves="losses on different scales, conflicts",
    caveats="the step does not get shorter as gradients vanish (its norm is √K): lower the learning rate over time, or clip",
    adds_up_to="what solves the equation; larger the smaller the gradients",
    checked="reference implementation, equations",
    preference="weights: task k bargains with power p_k",
)
class NashMTL(PreferenceBalancer):
    """Solves G Gᵀ α = 1/α (element by element), the Nash bargaining solution of the tasks (Navon et al., 2022, Claim 3.1).

    Solved to rounding as a convex problem by Newton's method; the released code runs a sequence of convex programmes.
    The direction's norm is √K at most, and rescaling a loss does not change the direction.

    Args:
        update_every: solve for new weights every so many steps only and keep them in between, when a step costs one
            ordinary backward (Nash-MTL-50 in the paper's appendix is ``update_every=50``). Kept weights apply to the
            shared parameters; task-specific ones get their own task's gradient as always.
        max_norm: clip the shared direction to this norm, as the released code does (1.0 there); not clipped if left out.
        preference: p, one bargaining power per task, at least 0, in the tasks' order or by name: G Gᵀ α = p/α, the asymmetric
            solution (Kalai, 1977). Only ratios matter: the mean of p over the tasks present counts as 1. The paper has p = 1.

    Raises:
        InputError: ``update_every`` is below 1, ``max_norm`` not positive, or preferences do not fit the tasks.

    Example:
        >>> NashMTL().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 1.0000])
    """

    stateful: ClassVar = {"kept": Maybe(Of(("K",), least=0, cpu=True)), "age": Whole()}

    def __init__(
        self,
        update_every: int = 1,
        max_norm: float | None = None,
        preference: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(preference)
        if update_every < 1:
            raise InputError(f"update_every must be at least 1; got {update_every}")
        self.update_every = update_every
        self.max_norm = norm_bound(max_norm)
        self.kept: Tensor | None = None
        self.age = 0
        self._decided = torch.empty(0, device="cpu")

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.nash_bargaining`."""
        return clipped(nash_bargaining(gramian, self._ratios(len(gramian))), gramian, self.max_norm)

    @property
    def needs(self) -> Need:  # type: ignore[override]  # it changes from step to step
        """The Gramian in the steps that solve for new weights, nothing but losses in those between."""
        return "gramian" if self.kept is None or self.age % self.update_every == 0 else "losses"

    def decide(self, observation: Observation) -> Tensor:
        """New weights where there is a Gramian, else the kept ones."""
        if observation.gramian is not None or self.kept is None:
            self._decided = super().decide(observation)
            return self._decided
        observation.check_memory(self, self.kept)
        return observation.of_present(self.kept)

    def update(self, observation: Observation) -> None:
        """Keeps the weights of this step and counts it."""
        self.age += 1
        if observation.gramian is None or self.update_every == 1:
            return
        positive = self._decided[self._decided > 0]
        usual = float(positive.mean()) if len(positive) else 1.0
        if self.kept is None:
            # Tasks that no Gramian has held yet count as middling ones.
            self.kept = torch.full((len(observation.tasks),), usual, dtype=torch.float64, device="cpu")
        self.kept = self.kept.clone()
        self.kept[list(observation.present)] = torch.where(self._decided > 0, self._decided, usual)

    def __repr__(self) -> str:
        preferred = "".join(f", {option}" for option in self._named())
        return f"NashMTL(update_every={self.update_every}, max_norm={self.max_norm}{preferred})"
