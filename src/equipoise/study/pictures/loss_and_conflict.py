"""Conflict against loss, and the teleports that jump from one side to the other (Figures 3 and 9 of the COST paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from equipoise.study.names import shortened
from equipoise.study.pictures.style import COLOURS
from equipoise.study.pictures.teleporting import legend_of, rows, shown
from equipoise.study.results import Results
from equipoise.teleport import TeleportReport

__all__ = ["loss_and_conflict_picture"]

_AGREE, _CONFLICT = "#E6F4EC", "#FCE8E4"
_POINT = COLOURS[0]
_TITLE = 34  # characters above a panel
_ENDS, _STAYS = "#C62828", "#8A6D6D"


def loss_and_conflict_picture(results: Results) -> Figure | None:
    """One row a method that teleports: on the left its counterpart without teleports, on the right the method itself."""
    names = [name for name in shown(results, attempted=False) if results.points(name)]
    if not names:
        return None
    figure, panels = rows(results, names, height=2.9)
    for name, left, right in panels:
        other = results.counterpart(name)
        alone = other is None or not results.points(other)
        own = left if alone else right
        _cloud(own, results.points(name))
        _jumps(own, results, name)
        own.set_title(shortened(results.short(name), _TITLE), loc="left", fontsize=10, fontweight="bold")
        if other is None or alone:
            right.set_visible(False)
            continue
        left.set_title(shortened(other, _TITLE), loc="left", fontsize=10, fontweight="bold")
        _cloud(left, results.points(other))
        limits = [limit for axes in (left, right) for limit in axes.get_xlim()]
        for axes in (left, right):
            axes.set_xlim(min(limits), max(limits))
    for axes in figure.axes:
        if axes.get_visible():
            _dress(axes)
    line = {"linestyle": (0, (4, 2)), "linewidth": 1.3, "markersize": 4, "marker": "o"}
    legend_of(
        figure,
        [
            ("a step", {"marker": "o", "color": _POINT, "markersize": 3}),
            ("teleport out of conflict (dot: where it landed)", {**line, "color": _ENDS}),
            ("other accepted teleport", {**line, "color": _STAYS, "linewidth": 0.9}),
        ],
    )
    return figure


def _cloud(axes: Axes, points: Mapping[int, Mapping[str, Any]]) -> None:
    for own in points.values():
        pairs = [
            (loss, cosine)
            for loss, cosine in zip(own["loss"], own["cosine"], strict=True)
            if loss is not None and cosine is not None and loss > 0
        ]
        if pairs:
            losses, cosines = zip(*pairs, strict=True)
            axes.scatter(losses, cosines, s=9, color=_POINT, alpha=0.45, linewidths=0, zorder=2)
    axes.set_xscale("log")
    axes.margins(x=0.04)


def _jumps(axes: Axes, results: Results, method: str) -> None:
    for seed, reports in results.teleports(method).items():
        scales = results.points(method).get(seed, {}).get("scales", {})
        for report in reports:
            if not report.accepted or not all(scales.get(task) for task in report.tasks):
                continue
            start, end = _place(report, scales, after=False), _place(report, scales, after=True)
            if not all(map(math.isfinite, (*start, *end))) or start[0] <= 0 or end[0] <= 0:
                continue
            ends = start[1] < 0 <= end[1]
            look = {"color": _ENDS if ends else _STAYS, "linewidth": 1.3 if ends else 0.9, "zorder": 4 if ends else 3}
            axes.plot(*zip(start, end, strict=True), linestyle=(0, (4, 2)), **look)  # type: ignore[arg-type]
            axes.plot(*end, marker="o", markersize=4, linestyle="none", **look)  # type: ignore[arg-type]


def _place(report: TeleportReport, scales: Mapping[str, float], *, after: bool) -> tuple[float, float]:
    """Scaled mean loss, and cosine of the task with the smallest gradient, as the points of the cloud have them."""
    losses, cosines, norms = (
        (report.losses_after, report.cosines_after, report.norms_after)
        if after
        else (report.losses_before, report.cosines_before, report.norms_before)
    )
    scaled = [loss / scales[task] for task, loss in zip(report.tasks, losses, strict=True)]
    return math.fsum(scaled) / len(scaled), cosines[int(np.argmin(norms))]


def _dress(axes: Axes) -> None:
    axes.axhspan(0, 1.05, color=_AGREE, linewidth=0, zorder=0)
    axes.axhspan(-1.05, 0, color=_CONFLICT, linewidth=0, zorder=0)
    axes.grid(False)
    axes.set_ylim(-1.05, 1.05)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    for height, align, text in ((0.98, "top", "no conflict"), (0.02, "bottom", "conflict")):
        axes.text(0.015, height, text, transform=axes.transAxes, ha="left", va=align, fontsize=8, color="#666666")
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    axes.xaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0] if decades < 2.2 else [1.0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("mean loss (1: at the start)")
    axes.set_ylabel("cosine of the smallest\ngradient with the mean")
