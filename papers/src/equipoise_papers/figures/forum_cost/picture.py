"""Seconds and memory against T and against p."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.study.pictures.style import COLOURS, grid
from equipoise_papers.figures.forum_cost.run import Measurement
from equipoise_papers.figures.forum_cost.settings import METHODS, Settings

__all__ = ["picture"]


def picture(found: Sequence[Measurement], settings: Settings) -> Figure:
    """Four panels, as in Figure 3.1."""
    figure, panels = grid(4, columns=4, width=3.0, height=2.9)
    by_steps = [one for one in found if one.layers == settings.layers[0] and one.lower_steps in settings.lower_steps]
    by_size = [one for one in found if one.lower_steps == settings.fixed_lower_steps and one.layers in settings.layers]
    for axes, own, across, up, label in (
        (panels[0], by_steps, _steps, _seconds, "seconds a step"),
        (panels[1], by_size, _size, _seconds, "seconds a step"),
        (panels[2], by_steps, _steps, _mebibytes, "memory of a step (MiB)"),
        (panels[3], by_size, _size, _mebibytes, "memory of a step (MiB)"),
    ):
        _lines(axes, own, across, up, settings)
        axes.set_title(label)
        axes.set_xlabel("lower steps $T$" if own is by_steps else f"$p$ (millions), $T = {settings.fixed_lower_steps}$")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _lines(
    axes: Axes,
    found: Sequence[Measurement],
    across: Callable[[Measurement], float],
    up: Callable[[Measurement], float],
    settings: Settings,
) -> None:
    for position, method in enumerate(settings.methods):
        own = sorted((across(one), up(one)) for one in found if one.method == method)
        # MoCo lies on top of MOML; dashes let both be seen.
        style = "--" if method == "moco" else "-"
        axes.plot(*zip(*own, strict=True), style, color=COLOURS[position], marker="o", markersize=3.5, label=METHODS[method])
    axes.set_ylim(bottom=0)


def _steps(one: Measurement) -> float:
    return one.lower_steps


def _size(one: Measurement) -> float:
    return one.parameters / 1e6


def _seconds(one: Measurement) -> float:
    return one.seconds


def _mebibytes(one: Measurement) -> float:
    return one.bytes / 2**20
