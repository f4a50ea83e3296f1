"""A metric: a name, the task it belongs to, and which direction is the better one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from equipoise.errors import InputError

__all__ = ["Metric"]

_UNSAID: Final[Any] = object()


@dataclass(frozen=True)
class Metric:
    """One number by which one task is judged.

    Args:
        name: the key under which an evaluation returns it.
        task: name of the task it judges; a task may have several metrics.
        higher_is_better: ``True`` for an accuracy, ``False`` for an error. There is no default: Δm and the ranks take
            their signs from it.
        unit: what the number is counted in, such as ``"%"`` or ``"m"``; empty for a pure number.
        label: what a person reads in tables and pictures; the name where it is left out.

    Raises:
        InputError: the direction was left out or is not a truth value.

    Example:
        >>> accuracy = Metric("left accuracy", "left", higher_is_better=True, unit="%")
        >>> accuracy.heading
        'left accuracy (%) ↑'
        >>> Metric("left accuracy", "left")
        Traceback (most recent call last):
            ...
        equipoise.errors.InputError: metric "left accuracy" has no direction; say higher_is_better=True or \
higher_is_better=False, because Δm and the ranks depend on it
    """

    name: str
    task: str
    higher_is_better: bool = _UNSAID
    unit: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.higher_is_better, bool):
            given = "" if self.higher_is_better is _UNSAID else f" (given: {self.higher_is_better!r})"
            raise InputError(
                f'metric "{self.name}" has no direction{given}; say higher_is_better=True or higher_is_better=False, '
                "because Δm and the ranks depend on it"
            )
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def quantity(self) -> str:
        """Label and unit, as on an axis: ``left accuracy (%)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """Label, unit and an arrow in the better direction, as over a column: ``left accuracy (%) ↑``."""
        return f"{self.quantity} {'↑' if self.higher_is_better else '↓'}"
