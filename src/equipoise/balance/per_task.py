"""Options with one number per task: given in the tasks' order, by name, or once for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from equipoise.balance.base import Observation
from equipoise.errors import InputError, near_misses

__all__ = ["PerTask"]


class PerTask:
    """One finite number per task.

    Args:
        option: what the option is called.
        given: the numbers in the tasks' order or by name, or one number for all of them.
        least: no number may be below this.

    Raises:
        InputError: a number is not finite or below ``least``.
    """

    def __init__(self, option: str, given: float | Sequence[float] | Mapping[str, float], least: float = -math.inf) -> None:
        self.option = option
        self.given: float | list[float] | dict[str, float]
        if isinstance(given, Mapping):
            self.given = {str(name): float(value) for name, value in given.items()}
            values = list(self.given.values())
        elif isinstance(given, int | float):
            self.given = float(given)
            values = [self.given]
        else:
            self.given = values = [float(value) for value in given]
        if any(not (math.isfinite(value) and value >= least) for value in values):
            floor = "" if least == -math.inf else f" and at least {least:g}"
            raise InputError(f"{option} must be finite{floor}; got {self.given}")

    def of_present(self, observation: Observation) -> list[float]:
        """The numbers of the tasks present. Raises InputError: the numbers are not those of the tasks."""
        if isinstance(self.given, float):
            return [self.given] * len(observation.present)
        if isinstance(self.given, dict):
            for name in self.given:
                if name not in observation.tasks:
                    raise InputError(
                        f'{self.option} names a task "{name}", which does not exist.{near_misses(name, observation.tasks)}'
                    )
            missing = [name for name in observation.tasks if name not in self.given]
            if missing:
                raise InputError(f"{self.option} lacks {', '.join(missing)}; give a number for every task")
            return [self.given[observation.tasks[position]] for position in observation.present]
        if len(self.given) != len(observation.tasks):
            raise InputError(
                f"{self.option} has {len(self.given)} numbers for {len(observation.tasks)} tasks "
                f"({', '.join(observation.tasks)})"
            )
        return [self.given[position] for position in observation.present]

    def __repr__(self) -> str:
        return repr(self.given)
