"""The trajectories in the plane of the parameters and in that of the losses, and the cost of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equipoise.study.names import wrapped
from equipoise.study.pictures.style import ACCENT, COLOURS, GREY, INK, grid, single
from equipoise_papers.figures.cost_toy.plane import SPAN, mean_loss
from equipoise_papers.figures.ldc_toy.run import Trajectories
from equipoise_papers.toys import ParetoSet

__all__ = ["cost_picture", "trajectories_picture"]


def trajectories_picture(trajectories: Trajectories) -> Figure:
    """Above the plane of the parameters, below that of the losses; a column a method."""
    methods = trajectories.settings.methods
    figure, panels = grid(2 * len(methods), columns=len(methods), width=3.0, height=2.9)
    pareto = ParetoSet(trajectories.settings.problem)
    for number, method in enumerate(methods):
        plane, losses = panels[number], panels[len(methods) + number]
        plane.set_title(wrapped("equal weighting" if method == "ls" else method, 30), fontsize=9)
        mean_loss(plane, trajectories.settings.problem)
        _draw(plane, trajectories.positions[:, number], pareto.points)
        plane.set_xlim(-SPAN, SPAN)
        plane.set_ylim(-SPAN, SPAN)
        plane.set_aspect("equal")
        _draw(losses, trajectories.losses[:, number], pareto.front)
        plane.set_xlabel("$x_1$")
        losses.set_xlabel("loss of task 1")
    for axes in (panels[0], panels[len(methods)]):
        axes.set_ylabel("$x_2$" if axes is panels[0] else "loss of task 2")
    handles: Sequence[Line2D] = (
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=5.5, label="start"),
        Line2D([], [], color=INK, marker="*", linestyle="", markersize=10, label="end"),
        Line2D([], [], color=INK, linewidth=5, alpha=0.35, label="Pareto set and front"),
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def cost_picture(seconds: Mapping[str, float]) -> Figure:
    """Seconds a step over those of the first method."""
    figure, axes = single(5.5, 0.5 + 0.35 * len(seconds))
    first = next(iter(seconds.values()))
    ratios = [value / first for value in seconds.values()]
    places = np.arange(len(ratios))[::-1]
    axes.barh(places, ratios, color=[GREY, *[ACCENT] * (len(ratios) - 1)], height=0.6)
    for place, ratio in zip(places, ratios, strict=True):
        axes.annotate(f"{ratio:.2f}", (ratio, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [wrapped(name, 30) for name in seconds])
    axes.set_xlim(0, max(ratios) * 1.12)
    axes.set_xlabel(f"time of a step over that of {next(iter(seconds))}")
    axes.grid(False)
    return figure


def _draw(axes: Axes, paths: np.ndarray, target: np.ndarray) -> None:
    axes.plot(*target.T, color=INK, linewidth=5, alpha=0.35, solid_capstyle="round", zorder=2)
    for start in range(paths.shape[1]):
        path, colour = paths[:, start], COLOURS[start % len(COLOURS)]
        axes.plot(*path.T, color=colour, linewidth=1.3, zorder=4)
        axes.plot(*path[0], marker="o", markersize=5.5, color=INK, zorder=5)
        axes.plot(*path[-1], marker="*", markersize=11, color=colour, markeredgecolor="white", markeredgewidth=0.7, zorder=6)
