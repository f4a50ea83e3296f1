"""One published table: its rows as printed, and what is needed to compute with them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from equipoise.errors import InputError, near_misses
from equipoise.metrics.metric import Metric
from equipoise.metrics.summaries import average_metric, delta_m

__all__ = ["SUMMARIES", "PublishedTable"]

SUMMARIES = ("MR", "delta_m", "delta_p", "average")
"""Columns that sum up the others of a row."""


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
        key: names it, such as ``"cost-table1"``; its rows lie in the file of that name.
        source: paper and table number, for people.
        title: what it is about.
        metrics: the columns that are metrics, in order; empty where only summaries were printed.
        baseline: the row that Δm or Δ_p is relative to; empty if there is none.
        notes: what has to be known to read it.

    Example:
        >>> from equipoise_papers.published import find_table
        >>> table = find_table("cost-table1")
        >>> table.value("FairGrad", "delta_m"), round(table.recomputed("FairGrad", "delta_m"), 2)
        (5.18, 5.12)
    """

    key: str
    source: str
    title: str
    metrics: tuple[Metric, ...] = ()
    baseline: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def printed(self) -> dict[str, dict[str, str]]:
        """Method → column → text as printed; columns that are empty there are left out."""
        text = files("equipoise_papers.published").joinpath("rows", f"{self.key}.csv").read_text(encoding="utf-8")
        read: dict[str, dict[str, str]] = {}
        for row in csv.DictReader(text.splitlines()):
            method = row.pop("method")
            read[method] = {column: cell for column, cell in row.items() if cell}
        return read

    @property
    def methods(self) -> tuple[str, ...]:
        """All rows but the baseline."""
        return tuple(method for method in self.printed if method != self.baseline)

    @property
    def summaries(self) -> tuple[str, ...]:
        """Which of :data:`SUMMARIES` the table has."""
        return tuple(column for column in SUMMARIES if any(column in row for row in self.printed.values()))

    def row(self, method: str) -> dict[str, float]:
        """Column → value of one row.

        Raises:
            InputError: there is no such row.
        """
        if method not in self.printed:
            raise InputError(
                f'{self.source} has no row "{method}".{near_misses(method, self.printed)} It has: {", ".join(self.printed)}'
            )
        return {column: float(cell) for column, cell in self.printed[method].items()}

    def value(self, method: str, column: str) -> float | None:
        """One printed number; ``None`` where there is none."""
        return self.row(method).get(column)

    def baseline_row(self) -> dict[str, float]:
        """The row that Δm or Δ_p is relative to.

        Raises:
            InputError: the table has none.
        """
        if not self.baseline:
            raise InputError(f"{self.source} has no single-task row")
        return self.row(self.baseline)

    def recomputed(self, method: str, column: str) -> float | None:
        """``"delta_m"``, ``"delta_p"`` or ``"average"`` of a row, from its printed metrics; ``None`` where one is missing."""
        return self.summed_up(self.row(method), column)

    def summed_up(self, values: Mapping[str, float], column: str) -> float | None:
        """The same for any values of the table's metrics, such as those of one's own run, against the table's baseline."""
        base = self.row(self.baseline) if self.baseline else {}
        if not self.metrics or any(metric.name not in values for metric in self.metrics):
            return None
        if column == "average":
            return average_metric(values, self.metrics)
        if any(metric.name not in base for metric in self.metrics):
            return None
        if column == "delta_m":
            return delta_m(values, base, self.metrics)
        if column == "delta_p":
            return 0.0 - delta_m(values, base, self.metrics, average="tasks")
        raise InputError(f'no summary "{column}" can be computed for one row; known: delta_m, delta_p, average')
