"""When a teleport may be attempted at all: delayed start, frequency, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from equipoise.errors import InputError
from equipoise.states import Form, Maybe, Number, Whole, read_state
from equipoise.teleport.checks import check_number, check_whole

__all__ = ["Counters", "Schedule"]

_LONGEST_BACK_OFF = 6  # doublings: a teleport that is always refused is tried at least every 64 cool-downs


@dataclass(frozen=True)
class Schedule:
    """When COST may attempt a teleport, and what all attempts may cost (appendix A.6 of the COST paper, and a budget).

    Epochs are counted by your calls of ``end_epoch()``. Cost is counted in evaluations of the model's losses; a backward pass
    counts as two.

    Args:
        start: first epoch in which to teleport, counted from 0.
        stop: first epoch in which to teleport no more; ``None`` for no end.
        start_step: first step after which to teleport, counted from 0.
        stop_step: first step after which to teleport no more; ``None`` for no end.
        per_epoch: the most attempts per epoch; ``None`` for any number.
        cooldown: the least number of steps from one attempt to the next; each refusal in a row doubles it, up to 64 times as
            many.
        budget: the most that all teleporting may cost, as a share of what training has cost so far; ``None`` for no limit.
        check_every: with balancers that form no Gramian, one is formed for the trigger at most once in so many steps, and only
            while a teleport would be due.

    Raises:
        InputError: a number that is out of range, or an end that comes before its start.

    Example:
        >>> Schedule(start=3, per_epoch=2, budget=None).cooldown
        10
    """

    start: int = 0
    stop: int | None = None
    start_step: int = 0
    stop_step: int | None = None
    per_epoch: int | None = None
    cooldown: int = 10
    budget: float | None = 0.1
    check_every: int = 10

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("start_step", 0), ("cooldown", 1), ("check_every", 1)):
            check_whole(name, getattr(self, name), least)
        for name, least in (("stop", 0), ("stop_step", 0), ("per_epoch", 1)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        for first, last in (("start", "stop"), ("start_step", "stop_step")):
            end = getattr(self, last)
            if end is not None and end <= getattr(self, first):
                raise InputError(f"{last}={end} leaves nothing after {first}={getattr(self, first)}")
        if self.budget is not None:
            check_number("budget", self.budget, "a positive share of the training's cost, such as 0.1, or None")


class Counters:
    """Counts steps, epochs and cost, and says when an attempt is due.

    Cost is counted in evaluations of the model's losses, a backward pass for two: unlike seconds, that is the same in every
    run and on every process.
    """

    kinds: ClassVar[dict[str, Form]] = {
        "epoch": Whole(),
        "in_epoch": Whole(),
        "last_attempt": Maybe(Whole()),
        "refused_in_a_row": Whole(),
        "trained": Number(0.0),
        "spent": Number(0.0),
    }

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
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
        """Whether an attempt is allowed after this step."""
        return not self.obstacle(step, expected)

    def obstacle(self, step: int, expected: float) -> str:
        """Why no attempt is allowed after this step, in words; nothing if one is."""
        schedule = self.schedule
        if self.epoch < schedule.start or step < schedule.start_step:
            return "before its start"
        if (schedule.stop is not None and self.epoch >= schedule.stop) or (
            schedule.stop_step is not None and step >= schedule.stop_step
        ):
            return "after its stop"
        if schedule.per_epoch is not None and self.in_epoch >= schedule.per_epoch:
            return "enough in this epoch"
        if self.last_attempt is not None and 0 <= step - self.last_attempt < self.wait:
            return "cooling down"
        if schedule.budget is not None and self.spent + expected > schedule.budget * self.trained:
            return "beyond the budget"
        return ""

    @property
    def wait(self) -> int:
        """Steps from the last attempt to the next."""
        return self.schedule.cooldown << min(self.refused_in_a_row, _LONGEST_BACK_OFF)

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
        return {name: value for name, value in vars(self).items() if name != "schedule"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from saved counters. Raises InputError: they are no counters."""
        for name, value in read_state("COST's schedule", state, self.kinds).items():
            setattr(self, name, value)
