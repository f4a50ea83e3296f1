"""Cosines and gradient norms before and after each attempt to teleport (Figure 8 of the COST paper)."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equipoise.study.pictures.style import COLOURS, GREY, log_scale
from equipoise.study.pictures.teleporting import REFUSED, attempts, legend_of, rows, shown, task_colours
from equipoise.study.results import Results
from equipoise.teleport import TeleportReport

__all__ = ["teleport_changes_picture"]

_BETTER, _WORSE = "#E3F2EA", "#FBE6E0"


def teleport_changes_picture(results: Results) -> Figure | None:
    """One row a method: cosines after against before, and the ratio of norms over training; one mark a task and attempt."""
    names = [name for name in shown(results) if any(report.cosines_after for report in attempts(results, name))]
    if not names:
        return None
    figure, panels = rows(results, names, height=3.5)
    colours = task_colours(results)
    for name, cosines, norms in panels:
        reports = [report for report in attempts(results, name) if report.cosines_after]
        _cosines(cosines, reports, colours)
        _norms(norms, reports, colours)
    few = len(set(colours.values())) == len(colours)
    tasks = [(task, colour) for task, colour in colours.items()] if few else [("accepted, one mark a task", COLOURS[0])]
    legend_of(
        figure,
        [
            *((task, {"marker": "o", "color": colour, "markersize": 5}) for task, colour in tasks),
            ("refused", {"marker": "o", "markerfacecolor": "none", "color": REFUSED, "markersize": 4}),
        ],
    )
    return figure


def _cosines(axes: Axes, reports: list[TeleportReport], colours: dict[str, str]) -> None:
    axes.fill([-1.05, 0, 0, -1.05], [0, 0, 1.05, 1.05], color=_BETTER, linewidth=0, zorder=0)
    axes.fill([0, 1.05, 1.05, 0], [-1.05, -1.05, 0, 0], color=_WORSE, linewidth=0, zorder=0)
    axes.plot([-1.05, 1.05], [-1.05, 1.05], color=GREY, linewidth=1, zorder=1)
    for x, y, text, align in ((-1.0, 0.96, "conflict ended", "left"), (1.0, -0.96, "conflict began", "right")):
        axes.text(x, y, text, ha=align, va="top" if y > 0 else "bottom", fontsize=8, color="#666666")
    _marks(axes, [(report, report.cosines_before, report.cosines_after) for report in reports], colours)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("cosine with the mean gradient, before")
    axes.set_ylabel("after")


def _norms(axes: Axes, reports: list[TeleportReport], colours: dict[str, str]) -> None:
    axes.axhline(1, color=GREY, linewidth=1, zorder=1)
    ratios = [
        tuple(after / before if before > 0 else math.nan for before, after in zip(r.norms_before, r.norms_after, strict=True))
        for r in reports
    ]
    _marks(axes, [(report, [report.step] * len(own), own) for report, own in zip(reports, ratios, strict=True)], colours)
    finite = [value for own in ratios for value in own if math.isfinite(value) and value > 0]
    if finite:
        # 1 in the middle: more and less are seen to be as likely as they are.
        reach = 1.15 * max(1.05, max(finite), 1 / min(finite))
        axes.set_ylim(1 / reach, reach)
        log_scale(axes)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xlabel("step of the attempt")
    axes.set_ylabel("gradient norm, after / before")


def _marks(axes: Axes, entries: list[tuple[TeleportReport, object, object]], colours: dict[str, str]) -> None:
    for accepted in (False, True):
        chosen = [
            (x, y, colours[task])
            for report, before, after in entries
            if report.accepted == accepted
            for task, x, y in zip(report.tasks, before, after, strict=True)  # type: ignore[call-overload]
        ]
        if not chosen:
            continue
        xs, ys, own = zip(*chosen, strict=True)
        if accepted:
            axes.scatter(xs, ys, s=22, c=own, edgecolors="white", linewidths=0.5, zorder=4)
        else:
            axes.scatter(xs, ys, s=14, facecolors="none", edgecolors=REFUSED, linewidths=0.9, zorder=3)
