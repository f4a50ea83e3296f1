"""The two terms of COST's objective while another point is sought (Figure 5b of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from equipoise.study.pictures.style import INK
from equipoise.study.pictures.teleporting import ACCEPTED, REFUSED, attempts, legend_of, rows, shown
from equipoise.study.results import Results
from equipoise.teleport import TeleportReport

__all__ = ["teleport_searches_picture"]

_LINES = 80  # a method; more would be one grey area
_ACCEPTED_LINE = "#8FCBB5"  # ACCEPTED, but light enough for many of them


def teleport_searches_picture(results: Results) -> Figure | None:
    """One row a method: L_t and L_g before each inner step, one line an attempt, and their means."""
    names = [name for name in shown(results) if any(report.invariance for report in attempts(results, name))]
    if not names:
        return None
    figure, panels = rows(results, names)
    for name, left, right in panels:
        reports = attempts(results, name)
        for axes, lines, quantity in (
            (left, [report.invariance for report in reports], "$L_t$, change of the losses"),
            (right, [report.reward for report in reports], "$L_g$, what is rewarded"),
        ):
            _panel(axes, reports, lines)
            axes.set_ylabel(quantity)
    legend_of(
        figure,
        [
            ("mean of the accepted", {"linestyle": "-", "color": ACCEPTED, "linewidth": 2.2}),
            ("mean of all", {"linestyle": "--", "color": INK, "linewidth": 1.6}),
            ("accepted", {"linestyle": "-", "color": _ACCEPTED_LINE, "linewidth": 0.9}),
            ("refused", {"linestyle": "-", "color": REFUSED, "linewidth": 0.9}),
        ],
    )
    return figure


def _panel(axes: Axes, reports: Sequence[TeleportReport], lines: Sequence[Sequence[float]]) -> None:
    stride = math.ceil(len(lines) / _LINES)
    for report, line in list(zip(reports, lines, strict=True))[::stride]:
        colour = _ACCEPTED_LINE if report.accepted else REFUSED
        axes.plot(range(len(line)), line, color=colour, linewidth=0.8, alpha=0.8, zorder=2 if report.accepted else 1)
    accepted = [line for report, line in zip(reports, lines, strict=True) if report.accepted]
    for own, look in (
        (lines, {"color": INK, "linestyle": "--", "linewidth": 1.6, "zorder": 5}),
        (accepted, {"color": ACCEPTED, "linestyle": "-", "linewidth": 2.2, "zorder": 4}),
    ):
        mean = _mean(own)
        axes.plot(range(len(mean)), mean, **look)  # type: ignore[arg-type]
    _leave_out_outliers(axes, lines)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.02)
    axes.set_xlabel("inner step")


def _mean(lines: Sequence[Sequence[float]]) -> list[float]:
    """Step by step over the attempts that got so far."""
    longest = max(map(len, lines), default=0)
    columns = [[line[step] for line in lines if len(line) > step and math.isfinite(line[step])] for step in range(longest)]
    return [math.fsum(column) / len(column) if column else math.nan for column in columns]


def _leave_out_outliers(axes: Axes, lines: Sequence[Sequence[float]]) -> None:
    """A few steps that went astray must not press all others to the bottom."""
    values = sorted(value for line in lines for value in line if math.isfinite(value))
    if not values:
        return
    top = 1.1 * max(values[int(0.97 * (len(values) - 1))], *filter(math.isfinite, _mean(lines)))
    # Both terms are at least 0, but an agreement that is sought in place of sharpness may be below.
    lowest = min(0.0, values[0])
    if top > lowest:
        axes.set_ylim(lowest - 0.03 * (top - lowest), top)
