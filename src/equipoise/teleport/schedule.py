"""When a teleport may be attempted at all: delayed start, frequency, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.errors import InputError
from equipoise.teleport.checks import check_whole

__all__ = ["Limits", "Schedule"]

_LONGEST_BACK_OFF = 6  # doublings: a teleport that is always refused is tried at least every 64 cool-downs


@dataclass(frozen=True)
class Limits:
    """The limits that a user sets (appendix A.6 of the COST paper, and a budget).

    Attributes:
        start: first epoch in which to teleport, counted from 0.
        stop: first epoch in which not to any more; ``None`` for no end.
        start_step: first step after which to teleport, counted from 0.
        stop_step: first step after which not to any more.
        per_epoch: attempts an epoch; ``None`` for any number.
        cooldown: steps from one attempt to the next at least; doubled with each refused attempt in a row.
        budget: the most that all teleporting may cost, as a share of what training cost so far; ``None`` for no limit.

    Raises:
        InputError: a number that is out of range.
    """

    start: int = 0
    stop: int | None = None
    start_step: int = 0
    stop_step: int | None = None
    per_epoch: int | None = None
    cooldown: int = 10
    budget: float | None = 0.1

    def __post_init__(self) -> None:
        for name in ("start", "stop", "start_step", "stop_step", "per_epoch", "cooldown"):
            value = getattr(self, name)
            if value is not None:
                check_whole(name, value, 1 if name in ("per_epoch", "cooldown") else 0)
        for first, last in (("start", "stop"), ("start_step", "stop_step")):
            end = getattr(self, last)
            if end is not None and end <= getattr(self, first):
                raise InputError(f"{last}={end} leaves nothing after {first}={getattr(self, first)}")
        if self.budget is not None and (
            isinstance(self.budget, bool) or not isinstance(self.budget, int | float) or not self.budget > 0
        ):
            raise InputError(f"budget must be a positive share of the training's cost, such as 0.1; got {self.budget!r}")


class Schedule:
    """Counts steps, epochs and cost, and says when an attempt is due.

    Cost is counted in evaluations of the model's losses, a backward pass for two: unlike seconds, that is the same in every
    run and on every process.

    Args:
        limits: what the user allows.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.epoch = 0
        self.in_epoch = 0
        self.last_attempt: int | None = None
        self.refused_in_a_row = 0
        self.trained = 0.0
        self.spent = 0.0

    def count_step(self, cost: float) -> None:
        """Counts a training step."""
        self.trained += cost

    def due(self, step: int, expected: float) -> bool:
        """Whether an attempt is allowed after this step.

        Args:
            step: index of the step just taken.
            expected: what the attempt would cost.
        """
        limits = self.limits
        return (
            limits.start <= self.epoch
            and (limits.stop is None or self.epoch < limits.stop)
            and limits.start_step <= step
            and (limits.stop_step is None or step < limits.stop_step)
            and (limits.per_epoch is None or self.in_epoch < limits.per_epoch)
            and (self.last_attempt is None or step - self.last_attempt >= self.wait or step < self.last_attempt)
            and (limits.budget is None or self.spent + expected <= limits.budget * self.trained)
        )

    @property
    def wait(self) -> int:
        """Steps from the last attempt to the next."""
        return self.limits.cooldown << min(self.refused_in_a_row, _LONGEST_BACK_OFF)

    def count_attempt(self, step: int, *, accepted: bool) -> None:
        """Counts an attempt."""
        self.in_epoch += 1
        self.last_attempt = step
        self.refused_in_a_row = 0 if accepted else self.refused_in_a_row + 1

    def end_epoch(self) -> None:
        """Begins a new epoch."""
        self.epoch += 1
        self.in_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """All counters."""
        return {name: value for name, value in vars(self).items() if name != "limits"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from saved counters."""
        for name in self.state_dict():
            setattr(self, name, state[name])
