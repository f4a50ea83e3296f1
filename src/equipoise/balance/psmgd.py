"""PSMGD: the weights of another method, found every so many steps and kept in between."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Need, Observation
from equipoise.balance.registry import register
from equipoise.balance.wrapping import Wrapping, keeps_weights
from equipoise.errors import InputError
from equipoise.states import Whole

__all__ = ["PSMGD"]

_LEAST = 1e-6


@register(
    "psmgd",
    summary="weights of `mgda`, or of another method, found every few steps and kept in between",
    paper="Xu et al., PSMGD: Periodic Stochastic Multi-Gradient Descent for Fast Multi-Objective Optimization, AAAI 2025",
    price="(K + `every` − 1) / `every` backward",
    promise="that of the method in the steps that find weights",
    serves="many tasks, whose weights change slowly, where K backward passes per step cost too much",
    caveats="weights of one noisy batch serve `every` steps; average them with `balancer=cr-mogm`",
    adds_up_to="what the other method's do",
    checked="equations of the released code",
)
class PSMGD(Wrapping):
    """Finds weights in steps 0, R, 2R, … and keeps them in between, when a step costs one ordinary backward pass.

    Xu et al. (2025, arXiv 2412.10961) take R times fewer minimum-norm points; only the abstract of their text was available,
    and the rest follows the released code: MGDA's weights, R = 8. That code also averages the weights that it *reports*, but
    takes its steps with those that were found, as here. It multiplies weights by K. Kept weights apply to shared parameters;
    task-specific ones get their own task's gradient as always. A task that no batch with a Gramian has held yet counts by the
    mean of those known, and a kept weight of zero as a millionth of the largest.

    Args:
        every: R, at least 1.
        balancer: any method on the Gramian that decides in every step, by its name or as an object; in text
            ``balancer=fairgrad(alpha=2)``. MGDA if left out.

    Raises:
        InputError: ``every`` is below 1, or the balancer does more than weigh tasks by their Gramian.

    Example:
        >>> balancer = PSMGD(every=2)
        >>> seen = Observation(("a", "b"), (0, 1), gramian=torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        >>> balancer.needs, balancer.decide(seen).tolist()
        ('gramian', [0.2, 0.8])
        >>> balancer.update(seen)
        >>> balancer.needs, balancer.decide(Observation(("a", "b"), (1,))).tolist()
        ('losses', [0.8])
    """

    stateful: ClassVar = {**Wrapping.stateful, "age": Whole()}

    def __init__(self, every: int = 8, balancer: GramianBalancer | str | None = None) -> None:
        if every < 1:
            raise InputError(f"every must be at least 1; got {every}")
        super().__init__(balancer)
        if keeps_weights(self.balancer):
            raise InputError(f"balancer must decide in every step; got {self.balancer!r}")
        self.every = every
        self.age = 0

    @property
    def needs(self) -> Need:  # type: ignore[override]  # it changes from step to step
        """The Gramian in the steps that find weights, nothing but losses in those between."""
        return "gramian" if self.kept is None or self.age % self.every == 0 else "losses"

    def decide(self, observation: Observation) -> Tensor:
        """New weights where there is a Gramian, else the kept ones."""
        if observation.gramian is not None or self.kept is None or self.known is None:
            observation.check_memory(self, self.kept)
            self._decided = self.balancer.decide(observation).double().cpu()
            return self._decided
        before, known = self.remembered(observation)
        weights = torch.where(known, before, self.kept[self.known].mean())
        # The one backward pass takes a task's own parameters by way of its weight, which must not be zero for that.
        least = _LEAST * float(weights.abs().max()) or _LEAST
        return torch.where(weights.abs() < least, least, weights)

    def update(self, observation: Observation) -> None:
        """Counts the step; where weights were found, keeps them and lets the balancer learn."""
        self.age += 1
        if observation.gramian is not None:
            self.balancer.update(observation)
            self.keep(observation, self._decided)

    def __repr__(self) -> str:
        return f"PSMGD(every={self.every}, balancer={self.balancer!r})"
