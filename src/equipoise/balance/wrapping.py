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

__all__ = ["Forwarding", "Holding", "Wrapping", "inner_balancer", "keeps_weights"]


def inner_balancer(given: GramianBalancer | str | None, usual: str = "mgda", option: str = "balancer") -> GramianBalancer:
    """The balancer that is gone on with.

    Args:
        given: one as an object, or its name.
        usual: the name of what is taken if it is left out.
        option: what the option is called.

    Raises:
        InputError: it does more than weigh tasks by their Gramian.
    """
    chosen: Any = balancer_of(given or usual) if given is None or isinstance(given, str) else given
    more = isinstance(chosen, Attached | PullsHeads | DoubleSampling | LooksElsewhere)
    if not isinstance(chosen, GramianBalancer) or more or chosen.watches:
        raise InputError(
            f"{option} must be a balancer that looks at the Gramian alone, such as equipoise.MGDA(), or its name; "
            f"got {chosen!r}"
        )
    return chosen


def keeps_weights(balancer: GramianBalancer) -> bool:
    """Whether it, or one that it holds, finds weights in some steps only and keeps them in those between."""
    every = max(getattr(balancer, "every", 1), getattr(balancer, "update_every", 1))
    return every > 1 or (isinstance(balancer, Holding) and keeps_weights(balancer.balancer))


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


class Forwarding(Holding, GramianBalancer):
    """Needs what the balancer that it holds needs, in the same metric, and answers with its weights.

    Args:
        balancer: the other one.
    """

    def __init__(self, balancer: GramianBalancer) -> None:
        self.balancer = balancer
        self.metric = balancer.metric

    @property
    def needs(self) -> Need:  # type: ignore[override]  # as the balancer does, step by step
        """What the balancer needs in the next step."""
        return self.balancer.needs

    def decide(self, observation: Observation) -> Tensor:
        """The balancer's weights ``[k]`` of the tasks present."""
        return self.balancer.decide(observation)

    def update(self, observation: Observation) -> None:
        """Lets the balancer learn."""
        self.balancer.update(observation)

    def weights(self, gramian: Tensor | ArrayLike) -> Tensor:
        """The balancer's weights of all tasks from the Gramian alone."""
        return self.balancer.weights(gramian)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """The balancer's weights from one Gramian."""
        return self.balancer.solve(gramian)


class Wrapping(Forwarding):
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
        super().__init__(inner_balancer(balancer))
        self.kept: Tensor | None = None
        self.known: Tensor | None = None
        self._decided = torch.empty(0, dtype=torch.float64, device="cpu")

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
