"""Training losses over epochs, one panel a task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.study.names import shortened
from equipoise.study.pictures.labels import label_ends
from equipoise.study.pictures.style import COLOURS, GREY, epochs_axis, grid, log_scale
from equipoise.study.results import Results

__all__ = ["losses_picture"]

_HEIGHT = 3.0  # inches a panel, title and labels included
_PANELS = 12  # more tasks than that would not be readable in one picture


def losses_picture(results: Results) -> Figure | None:
    """Mean training loss of each task; a few methods stand out and are named, the others are grey."""
    if not results.methods:
        return None
    tasks = results.tasks[:_PANELS]
    figure, panels = grid(len(tasks), columns=2, width=4.8, height=_HEIGHT)
    named = highlighted(results)
    for axes, task in zip(panels, tasks, strict=True):
        curves = {name: results.curve(name, "losses", task) for name in results.methods}
        for name, curve in curves.items():
            if name not in named:
                _draw(axes, curve, color=GREY, linewidth=1.0, zorder=1)
        ends = []
        for position, name in enumerate(named):
            # Each narrower than the one below it, so that curves that coincide are still seen to be several.
            _draw(axes, curves[name], color=COLOURS[position], linewidth=3.4 - 0.6 * position, zorder=3)
            ends.append((curves[name][-1], shortened(results.short(name), 24), COLOURS[position]))
        single = results.baseline_curve(task, "losses", task)
        if single:
            _draw(axes, single, color="black", linewidth=1.6, linestyle="--", zorder=4)
            ends.append((single[-1], "single-task", "black"))
        if all(value > 0 for curve in (*curves.values(), single) for value in curve if math.isfinite(value)):
            log_scale(axes)
        epochs_axis(axes, results.epochs)
        axes.set_ylabel("training loss")
        axes.set_title(task, loc="left", fontsize=10, fontweight="bold")
        label_ends(axes, ends, panel=0.72 * _HEIGHT)
    if len(named) < len(results.methods):
        figure.supxlabel("grey: the other methods; all curves are means over seeds", fontsize=9, color="#666666")
    return figure


def highlighted(results: Results) -> list[str]:
    """The methods that stand out: all if they are few, else the two best, the reference, and the worst by Δm."""
    ranking = results.ranking()
    if len(ranking) <= 4:
        return list(ranking)
    return list(dict.fromkeys((*ranking[:2], results.reference, ranking[-1])))


def _draw(axes: Axes, curve: Sequence[float], **style: object) -> None:
    # A point as well where there is nothing to connect it to.
    axes.plot(range(1, len(curve) + 1), curve, marker="o" if len(curve) == 1 else None, markersize=4, **style)  # type: ignore[arg-type]
