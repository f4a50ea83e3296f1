"""The torch optimizers of the outer updates, as one, and their step sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.bilevel.problem import LevelVariables
from equipoise.errors import InputError

__all__ = ["OuterOptimizers", "decaying"]


class OuterOptimizers:
    """One or several torch optimizers that step together.

    Raises:
        InputError: no optimizer, variables missing from all of them, held by two, or held although they must not be.
    """

    def __init__(
        self,
        given: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        stepped: Sequence[LevelVariables],
        others: LevelVariables | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.scaler = scaler
        self.all: list[torch.optim.Optimizer] = list(given) if isinstance(given, tuple | list) else [given]  # type: ignore[list-item]
        if not self.all or not all(isinstance(optimizer, torch.optim.Optimizer) for optimizer in self.all):
            raise InputError(f"optimizer must be a torch optimizer or several of them; got {given!r}")
        if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in self.all):
            raise InputError("LBFGS evaluates the loss several times per step, which bilevel gradients cannot follow")
        self.parameters: list[Tensor] = [
            parameter for optimizer in self.all for group in optimizer.param_groups for parameter in group["params"]
        ]
        held = [id(parameter) for parameter in self.parameters]
        if len(set(held)) < len(held):
            raise InputError("two of the optimizers hold the same tensor; each may be held by one only")
        for level in stepped:
            missing = [name for name, tensor in zip(level.names, level.tensors, strict=True) if id(tensor) not in set(held)]
            if missing:
                raise InputError(
                    f'no optimizer holds the {level.level}-level variable "{missing[0]}"'
                    + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
                    + "; this method updates it with a torch optimizer, so give one that holds it"
                )
        if others is not None and {id(tensor) for tensor in others.tensors} & set(held):
            raise InputError(
                f"an optimizer holds {others.level}-level variables; this method moves them itself by lower steps, "
                f"so give optimizers the {stepped[0].level}-level variables only"
            )

    def clear(self) -> None:
        """Forgets all gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Lets every optimizer take its step; with a scaler, which then learns that nothing overflowed."""
        if self.scaler is None:
            for optimizer in self.all:
                optimizer.step()
            return
        scale = self.scaler.get_scale()
        for optimizer in self.all:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(scale)  # a power of two, which the scaler divides out again
            self.scaler.step(optimizer)
        self.scaler.update()

    def kept(self) -> Callable[[], None]:
        """Remembers what the optimizers, and the scaler, change when they step; what is returned brings it back."""
        values, states = [own.detach().clone() for own in self.parameters], self.state_dict()
        scaler = {} if self.scaler is None else self.scaler.state_dict()

        def bring_back() -> None:
            with torch.no_grad():
                for own, value in zip(self.parameters, values, strict=True):
                    own.copy_(value)
            self.load_state_dict(states)
            if self.scaler is not None:
                self.scaler.load_state_dict(scaler)

        return bring_back

    def state_dict(self) -> list[dict[str, Any]]:
        """Copies of the states of all, which further steps do not change."""
        return [copy.deepcopy(optimizer.state_dict()) for optimizer in self.all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Continues from saved states, which stay as they are."""
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))


def decaying(optimizer: torch.optim.Optimizer, *, after: int = 100, power: float = 0.5) -> torch.optim.lr_scheduler.LambdaLR:
    """A scheduler of outer steps: step k has the optimizer's step size times (1 + k/after)^(−power).

    Value-function methods hold a constraint by steps against it, so with a constant step size they end where the steps for and
    against cancel, or in a cycle; theirs should decay. Theorem 3.7 of the thesis has steps of K^(−1/2) for K steps.

    Args:
        optimizer: of the outer steps; of several, each needs a scheduler.
        after: steps until the step size has fallen to 2^(−power) of the first one.
        power: of the decay; between 0, none, and 1.

    Returns:
        A torch scheduler: call ``step()`` after every ``solver.step``, and save it beside the solver's state.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], 0.4)
        >>> scheduler = decaying(optimizer, after=3)
        >>> for _ in range(9):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> round(optimizer.param_groups[0]["lr"], 6)
        0.2
    """
    if isinstance(after, bool) or not isinstance(after, int) or after < 1:
        raise InputError(f"after must be a whole number of steps, at least 1; got {after}")
    if not 0 <= power <= 1:
        raise InputError(f"power must lie between 0 and 1; got {power}")
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1.0 + step / after) ** -power)
