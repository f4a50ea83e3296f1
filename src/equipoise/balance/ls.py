"""Linear scalarization: fixed weights, equal ones by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers
from equipoise.balance.registry import register
from equipoise.errors import InputError, near_misses

__all__ = ["LS"]


@register(
    "ls",
    summary="sum of the losses, each times a fixed weight (equal weighting by default)",
    paper="standard; see Caruana, Multitask Learning, 1997",
    aliases=("ew", "equal", "linear-scalarization", "weighted-ls"),
    price="1 backward",
    promise="minimises the sum of the losses, each times a fixed weight",
    serves="always, as the baseline; when you know good weights",
    caveats="the weights are yours to find; loud losses drown quiet ones",
    adds_up_to="the number of tasks present",
    checked="closed form",
)
class LS(LossBalancer):
    """Minimises Σ_k w_k ℓ_k with fixed weights w.

    Args:
        weights: one non-negative number per task, in the tasks' order or by name; 1 for every task if left out, which is
            ``sum(losses).backward()``.

    Raises:
        InputError: negative, non-finite, or not one weight per task.

    Example:
        >>> LS().weights(torch.tensor([2.0, 8.0]))
        tensor([1., 1.])
    """

    depends_on_losses = False

    def __init__(self, weights: Sequence[float] | Mapping[str, float] | None = None) -> None:
        self._by_name = {str(k): float(v) for k, v in weights.items()} if isinstance(weights, Mapping) else None
        self._in_order = [float(v) for v in weights] if weights is not None and self._by_name is None else None
        values = list((self._by_name or {}).values()) + (self._in_order or [])
        if any(not 0 <= value < float("inf") for value in values):
            raise InputError(f"weights must be finite and at least 0; got {values}")

    def decide(self, observation: Observation) -> Tensor:
        """The fixed weights of the tasks present."""
        if self._by_name is not None:
            for name in self._by_name:
                if name not in observation.tasks:
                    raise InputError(
                        f'a weight was given for task "{name}", which does not exist.{near_misses(name, observation.tasks)}'
                    )
            missing = [name for name in observation.tasks if name not in self._by_name]
            if missing:
                raise InputError(f"no weight was given for {', '.join(missing)}; give one for every task")
            chosen = [self._by_name[observation.tasks[position]] for position in observation.present]
        elif self._in_order is not None:
            if len(self._in_order) != len(observation.tasks):
                raise InputError(
                    f"{len(self._in_order)} weights were given for {len(observation.tasks)} tasks "
                    f"({', '.join(observation.tasks)})"
                )
            chosen = [self._in_order[position] for position in observation.present]
        else:
            chosen = [1.0] * len(observation.present)
        return torch.tensor(chosen, dtype=torch.float64, device="cpu")

    def weights(self, losses: Tensor | ArrayLike) -> Tensor:
        """The fixed weights for losses ``[K]`` of all tasks."""
        losses = as_numbers(losses, "the losses", 1)
        if self._by_name is not None:
            raise InputError("weights given by name need the tasks' names; use the balancer in a step")
        if self._in_order is not None and len(self._in_order) != len(losses):
            raise InputError(f"{len(self._in_order)} weights were given for {len(losses)} losses")
        return torch.ones_like(losses) if self._in_order is None else losses.new_tensor(self._in_order)

    def __repr__(self) -> str:
        given = self._by_name if self._by_name is not None else self._in_order
        return f"LS({'' if given is None else f'weights={given}'})"
