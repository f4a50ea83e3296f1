"""Runs the experiment and writes what came out: pictures, table, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equipoise.markdown import table as markdown
from equipoise.study.names import wrapped
from equipoise.study.pictures.style import ACCENT, COLORS, GREY, INK, grid, single
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.cost_toy.pictures import SPAN, mean_loss
from equipoise_papers.figures.ldc_toy.run import LDCToyOutcome, LDCToyTrajectories, outcomes, run, seconds_per_step, spread
from equipoise_papers.figures.ldc_toy.settings import LDCToySettings
from equipoise_papers.figures.outputs import made_folder, parts_told, write_outputs
from equipoise_papers.toys import ParetoCurve

__all__ = ["cost_picture", "make", "trajectories_picture"]


def make(settings: LDCToySettings, folder: Path, told: Told = silent) -> str:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: takes a line now and then.

    Returns:
        The tables, as Markdown.

    Raises:
        InputError: the folder cannot be made, or a method cannot be run.
    """
    made_folder(folder)
    trajectories = run(settings, parts_told(told, settings.steps))
    seconds = seconds_per_step(settings)
    table = outcomes(trajectories)
    text = _markdown(table, seconds, settings)
    numbers = {"settings": asdict(settings), "ends": [asdict(outcome) for outcome in table], "seconds per step": seconds}
    pictures = {"": trajectories_picture(trajectories), "-cost": cost_picture(seconds)}
    write_outputs(folder, "ldc-toy", pictures, text, numbers)
    return text


def _markdown(table: list[LDCToyOutcome], seconds: Mapping[str, float], settings: LDCToySettings) -> str:
    ends = [
        [
            row.method,
            _pair(row.start, 1),
            _pair(row.end, 2),
            _pair(row.losses, 2),
            "yes" if row.pareto else "no",
            "–" if row.steps is None else f"{row.steps:,}",
            f"{row.gap:.2f}",
        ]
        for row in table
    ]
    first = next(iter(seconds.values()))
    sums = []
    for method, own in seconds.items():
        reached = [row.pareto for row in table if row.method == method]
        sums.append([method, f"{sum(reached)} of {len(reached)}", f"{spread(table, method):.2f}", f"{own / first:.2f}"])
    step = f"time of a step over that of {settings.methods[0]}"
    lines = [
        markdown(
            ["method", "start", "end", "losses there", "on the Pareto set", "since step", "abs(10 L₁ − L₂)"], ends, left=5
        ),
        "",
        markdown(["method", "on the Pareto set", "farthest two ends", step], sums),
        "",
        f"Adam {settings.lr:g}, {settings.steps:,} steps, first loss times 0.1, sign: {settings.sign}. Losses are shifted by a "
        f"lower bound (2.1 and 21) before a method sees them. Times: median of {settings.repeats} turns of "
        f"{settings.timed_steps:,} steps each.",
        "",
    ]
    return "\n".join(lines)


def _pair(values: tuple[float, float], digits: int) -> str:
    return f"({values[0]:.{digits}f}, {values[1]:.{digits}f})".replace("-", "−")


def trajectories_picture(trajectories: LDCToyTrajectories) -> Figure:
    """Above the plane of the parameters, below that of the losses; one column per method."""
    methods = trajectories.settings.methods
    figure, panels = grid(2 * len(methods), columns=len(methods), width=3.0, height=2.9)
    pareto = ParetoCurve(trajectories.settings.problem)
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
    """Seconds per step over those of the first method."""
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
        path, color = paths[:, start], COLORS[start % len(COLORS)]
        axes.plot(*path.T, color=color, linewidth=1.3, zorder=4)
        axes.plot(*path[0], marker="o", markersize=5.5, color=INK, zorder=5)
        axes.plot(*path[-1], marker="*", markersize=11, color=color, markeredgecolor="white", markeredgewidth=0.7, zorder=6)
