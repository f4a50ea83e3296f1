"""How much weight each task gets over epochs, one panel a method."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from equipoise.study.pictures.panels import by_method, legend
from equipoise.study.pictures.style import COLOURS, GREY, STYLES, percent
from equipoise.study.results import Results

__all__ = ["weights_picture"]

_NAMED = 12  # more tasks than that get one thin line each, without names


def weights_picture(results: Results) -> Figure | None:
    """Each task's share of the total weight, which makes methods of different scales comparable."""
    shares = {name: _shares(results, name) for name in results.ranking()}
    shown = [name for name, own in shares.items() if any(map(math.isfinite, (v for curve in own for v in curve)))]
    if not shown:
        return None
    figure, panels = by_method(results, "share of weight", shown)
    few = len(results.tasks) <= _NAMED
    for name, axes in panels.items():
        axes.axhline(1 / len(results.tasks), color=GREY, linewidth=1.2)
        for position, curve in enumerate(shares[name]):
            colour, style = _look(position) if few else (COLOURS[0], "-")
            axes.plot(range(1, len(curve) + 1), curve, color=colour, linestyle=style, linewidth=1.8 if few else 0.6, zorder=3)
        percent(axes)
    entries = [(task, *_look(position)) for position, task in enumerate(results.tasks)] if few else []
    legend(figure, [*entries, ("equal shares", GREY, "-")])
    return figure


def _shares(results: Results, method: str) -> list[list[float]]:
    """Task → epoch → mean weight divided by the sum over tasks of magnitudes."""
    curves = [results.curve(method, "weights", task) for task in results.tasks]
    totals = [math.fsum(abs(value) for value in epoch if math.isfinite(value)) for epoch in zip(*curves, strict=True)]
    return [[value / total if total else math.nan for value, total in zip(curve, totals, strict=True)] for curve in curves]


def _look(position: int) -> tuple[str, str]:
    return COLOURS[position % len(COLOURS)], STYLES[(position + position // len(COLOURS)) % len(STYLES)]
