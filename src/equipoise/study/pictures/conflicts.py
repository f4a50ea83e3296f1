"""In how many steps tasks conflict, over epochs, one panel a method."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from equipoise.study.pictures.panels import by_method, legend
from equipoise.study.pictures.style import COLOURS, percent
from equipoise.study.results import Results

__all__ = ["conflicts_picture"]


def conflicts_picture(results: Results) -> Figure | None:
    """Share of steps in which any task, and in which the task with the smallest gradient, conflicts with the mean."""
    curves = {
        name: (results.curve(name, "conflicts", "any"), results.curve(name, "conflicts", "smallest"))
        for name in results.ranking()
    }
    if not any(math.isfinite(value) for pair in curves.values() for curve in pair for value in curve):
        return None
    figure, panels = by_method(results, "share of steps")
    for name, axes in panels.items():
        for other in results.methods:
            axes.plot(range(1, len(curves[other][0]) + 1), curves[other][0], color="#DDDDDD", linewidth=0.8, zorder=1)
        for curve, colour, style in zip(curves[name], COLOURS, ("-", "--"), strict=False):
            axes.plot(range(1, len(curve) + 1), curve, color=colour, linestyle=style, linewidth=1.8, zorder=3)
        percent(axes)
    legend(
        figure,
        [
            ("any task conflicts with the mean gradient", COLOURS[0], "-"),
            ("the task with the smallest gradient does", COLOURS[1], "--"),
            ("the other methods (any task)", "#CCCCCC", "-"),
        ],
    )
    return figure
