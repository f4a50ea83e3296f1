"""Do the printed summaries follow from the printed rows? Printed numbers are rounded, so the answer is an interval."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from equipoise.metrics.metric import Metric
from equipoise_papers.published.table import PublishedTable

__all__ = ["Check", "check"]


@dataclass(frozen=True)
class Check:
    """One printed summary against what the printed metrics of its row give.

    Attributes:
        table: the table's key.
        method: the row.
        column: ``"delta_m"``, ``"delta_p"``, ``"MR"`` or ``"average"``.
        printed: the number in the paper.
        lowest: the smallest value that metrics can have had that round to the printed ones.
        highest: the largest.
        margin: half a unit in the last place of the printed number.
    """

    table: str
    method: str
    column: str
    printed: float
    lowest: float
    highest: float
    margin: float

    @property
    def agrees(self) -> bool:
        """Whether the printed number can be the rounded summary of unrounded metrics."""
        return self.lowest - self.margin - 1e-9 <= self.printed <= self.highest + self.margin + 1e-9

    @property
    def difference(self) -> float:
        """How far the printed number is outside of what is possible; 0 where it agrees."""
        if self.agrees:
            return 0.0
        return self.printed - (self.highest if self.printed > self.highest else self.lowest)


def check(table: PublishedTable) -> list[Check]:
    """Computes every summary of a table again that its rows allow.

    For Δm, Δ_p and averages the bounds are exact: they are monotone in every value. For MR a method whose value is printed
    equal to others' may have any of the ranks that they share, so that its bounds are the best and the worst of them; ranks
    are among the methods, without the single-task row.

    Returns:
        One entry a printed summary that can be computed, in the order of the rows.
    """
    found = []
    for method, column in itertools.product(table.methods, table.summaries):
        cell = table.printed[method].get(column)
        bounds = None if cell is None else _bounds(table, method, column)
        if cell is not None and bounds is not None:
            found.append(Check(table.key, method, column, float(cell), *bounds, half_unit(cell)))
    return found


def half_unit(cell: str) -> float:
    """Half a unit in the last printed place: 0.005 for ``"5.18"``."""
    return 0.5 * 10.0 ** -len(cell.partition(".")[2])


def _bounds(table: PublishedTable, method: str, column: str) -> tuple[float, float] | None:
    if column == "MR":
        return _ranks(table, method)
    if table.recomputed(method, column) is None:
        return None
    extremes = [_extreme(table, method, column, sign) for sign in (-1.0, 1.0)]
    return min(extremes), max(extremes)


def _extreme(table: PublishedTable, method: str, column: str, sign: float) -> float:
    """The summary with every metric moved half a unit so that it helps (or hurts), and the baseline the other way."""
    moved = {metric.name: _moved(table, method, metric, sign) for metric in table.metrics}
    if column == "average":
        return math.fsum(moved.values()) / len(moved)
    base = {metric.name: _moved(table, table.baseline, metric, -sign) for metric in table.metrics}
    of_tasks: dict[str, list[float]] = {}
    for metric in table.metrics:
        better = 1.0 if metric.higher_is_better else -1.0
        of_tasks.setdefault(metric.task, []).append(better * (moved[metric.name] / base[metric.name] - 1) * 100)
    if column == "delta_p":
        return math.fsum(math.fsum(own) / len(own) for own in of_tasks.values()) / len(of_tasks)
    everything = [gain for own in of_tasks.values() for gain in own]
    return -math.fsum(everything) / len(everything)


def _moved(table: PublishedTable, method: str, metric: Metric, sign: float) -> float:
    cell = table.printed[method][metric.name]
    return float(cell) + sign * (1.0 if metric.higher_is_better else -1.0) * half_unit(cell)


def _ranks(table: PublishedTable, method: str) -> tuple[float, float] | None:
    rows = {name: table.row(name) for name in table.methods}
    if not table.metrics or any(metric.name not in row for metric in table.metrics for row in rows.values()):
        return None
    best, worst = 0, 0
    for metric in table.metrics:
        sign = -1.0 if metric.higher_is_better else 1.0
        own = sign * rows[method][metric.name]
        others = [sign * row[metric.name] for name, row in rows.items() if name != method]
        best += 1 + sum(other < own for other in others)
        worst += 1 + sum(other <= own for other in others)
    return best / len(table.metrics), worst / len(table.metrics)
