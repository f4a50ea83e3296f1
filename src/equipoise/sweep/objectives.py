"""What a trial is judged by, on the validation split after the last epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from equipoise.errors import InputError, near_misses
from equipoise.metrics import Metric, delta_m

__all__ = ["DELTA_M", "SweepObjective", "drop", "find_metric", "parse_objectives"]

DELTA_M = "delta_m"


def drop(value: float, baseline: float, metric: Metric) -> float:
    """How much worse than single-task training a value is, in percent: one metric's part of Δm.

    Example:
        >>> drop(90.0, 100.0, Metric("accuracy", "class", higher_is_better=True))
        10.0
    """
    return delta_m({metric.name: value}, {metric.name: baseline}, [metric])


@dataclass(frozen=True)
class SweepObjective:
    """Something that a sweep makes better: Δm, or one metric.

    Attributes:
        name: ``"delta_m"`` or the metric's name.
        metrics: those that it looks at: all for Δm, else one.
    """

    name: str
    metrics: tuple[Metric, ...]

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """``"minimize"`` or ``"maximize"``, as Optuna spells it."""
        return "maximize" if self.name != DELTA_M and self.metrics[0].higher_is_better else "minimize"

    @property
    def heading(self) -> str:
        """As over a column."""
        return "Δm (%) ↓" if self.name == DELTA_M else self.metrics[0].heading

    def value(self, values: Mapping[str, float | None], baseline: Mapping[str, float]) -> float:
        """The objective's value; ``nan`` if a metric has none."""
        numbers = {name: math.nan if value is None else float(value) for name, value in values.items()}
        numbers = {metric.name: numbers.get(metric.name, math.nan) for metric in self.metrics}
        if self.name == DELTA_M:
            return delta_m(numbers, baseline, self.metrics)
        return numbers[self.name]


def find_metric(name: str, metrics: Sequence[Metric]) -> Metric:
    """A metric by its name or label. Raises InputError: there is none; near misses are suggested."""
    for metric in metrics:
        if name.strip() in (metric.name, metric.label):
            return metric
    known = dict.fromkeys(own for metric in metrics for own in (metric.name, metric.label))
    raise InputError(
        f'there is no metric "{name.strip()}".{near_misses(name.strip(), known)} '
        f"Metrics: {', '.join(metric.name for metric in metrics)}"
    )


def parse_objectives(given: str | Sequence[str], metrics: Sequence[Metric]) -> tuple[SweepObjective, ...]:
    """Reads ``"delta_m"``, one metric of the problem, or several: ``"left accuracy,sum error"``.

    Raises:
        InputError: none, one twice, or one that the problem does not have.

    Example:
        >>> accuracy = Metric("left", "left", higher_is_better=True, label="left accuracy")
        >>> [own.direction for own in parse_objectives("delta_m, left accuracy", [accuracy])]
        ['minimize', 'maximize']
    """
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else given) if name.strip()]
    if not names:
        raise InputError('a sweep needs an objective: "delta_m", or one or more metrics')
    read = []
    for name in names:
        if name.lower().replace("-", "_") in (DELTA_M, "δm"):
            read.append(SweepObjective(DELTA_M, tuple(metrics)))
            continue
        try:
            metric = find_metric(name, metrics)
        except InputError as error:
            raise InputError(f'{error}; or "{DELTA_M}" for all of them') from None
        read.append(SweepObjective(metric.name, (metric,)))
    if len({own.name for own in read}) < len(read):
        raise InputError(f"an objective is given twice in {', '.join(names)}")
    return tuple(read)
