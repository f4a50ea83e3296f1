"""Balancers that go on with the weights of another one on the Gramian: averaged, kept for some steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equipoise.balance.base import Balancer, GramianBalancer, Need, Observation, restore
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import Attached, LooksElsewhere, PullsHeads
from equipoise.balance.registry import balancer as balancer_of
from equipoise.errors import InputError
from equipoise.states import Anything, Form, Maybe, Of, like, read_state, tasks_known

__all__ = ["Holding", "Wrapping", "inner_balancer"]


def inner_balancer(given: GramianBalancer | str | None, usual: str = "mgda") -> GramianBalancer:
    """The balancer that is gone on with.

    Raises:
        InputError: it does more than weigh tasks by their Gramian.
    """
    chosen: Any = balancer_of(given or usual) if given is None or isinstance(given, str) else given
    more = isinstance(chosen, Attached | PullsHeads | DoubleSampling | LooksElsewhere)
    if not isinstance(chosen, GramianBalancer) or more or chosen.watches:
        raise InputError(
            f"balancer must be one that looks at the Gramian alone, such as equipoise.MGDA(), or its name; got {chosen!r}"
        )
    return chosen


class Holding(Balancer):
    """A balancer that holds another one, whose state is a part of its own.

    Attributes:
        balancer: the other one.
    """

    balancer: GramianBalancer
    stateful: ClassVar[Mapping[str, Form]] = {}

    def end_epoch(self) -> None:
        """Tells the balancer."""
        self.balancer.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """What it keeps, and the balancer's own state."""
        return super().state_dict() | {"balancer": self.balancer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state belongs to another kind of balancer, or is damaged; nothing has changed.
        """
        read = self.read_state(state)
        self.balancer.load_state_dict(read.pop("balancer"))
        for name, value in read.items():
            restore(self, name, value)

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; the part of the other one is read by it."""
        sizes = {} if sizes is None else sizes
        kinds = {name: like(getattr(self, name)) if kind == Anything() else kind for name, kind in self.stateful.items()}
        for name, kind in kinds.items():
            tasks_known(kind, getattr(self, name), sizes)
        read = read_state(type(self).__name__, state, {**kinds, "balancer": Anything()}, sizes)
        return {**read, "balancer": self.balancer.read_state(read["balancer"], sizes)}


class Wrapping(Holding, GramianBalancer):
    """Goes on with the weights of another balancer on the Gramian, in its metric.

    A task's weight is remembered from the last batch that held it.

    Attributes:
        kept: what is remembered, ``[K]``.
        known: which tasks have been seen, ``[K]``.

    Args:
        balancer: whose weights.
    """

    stateful: ClassVar = {
        "kept": Maybe(Of(("K",), cpu=True), "memory"),
        "known": Maybe(Of(("K",), torch.bool, cpu=True), "memory"),
    }

    def __init__(self, balancer: GramianBalancer | str | None) -> None:
        self.balancer = inner_balancer(balancer)
        self.metric = self.balancer.metric
        self.kept: Tensor | None = None
        self.known: Tensor | None = None
        self._decided = torch.empty(0, dtype=torch.float64, device="cpu")

    @property
    def needs(self) -> Need:  # type: ignore[override]  # as the balancer does, step by step
        """What the balancer needs in the next step."""
        return self.balancer.needs

    def weights(self, gramian: Tensor | ArrayLike) -> Tensor:
        """The balancer's weights, with which a memory begins."""
        return self.balancer.weights(gramian)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """The balancer's weights from one Gramian."""
        return self.balancer.solve(gramian)

    def remembered(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """What is kept of the tasks present ``[k]``, and which of them are known ``[k]``."""
        observation.check_memory(self, self.kept)
        count = len(observation.present)
        if self.kept is None or self.known is None:
            return torch.zeros(count, dtype=torch.float64, device="cpu"), torch.zeros(count, dtype=torch.bool, device="cpu")
        return observation.of_present(self.kept), observation.of_present(self.known)

    def keep(self, observation: Observation, weights: Tensor) -> None:
        """Remembers the weights ``[k]`` of the tasks present."""
        count = len(observation.tasks)
        kept = torch.zeros(count, dtype=torch.float64, device="cpu") if self.kept is None else self.kept.clone()
        known = torch.zeros(count, dtype=torch.bool, device="cpu") if self.known is None else self.known.clone()
        kept[list(observation.present)] = weights
        known[list(observation.present)] = True
        self.kept, self.known = kept, known
