"""How the losses of the tasks are distributed at the end, one panel a method."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from equipoise.study.discrepancy import relative_losses
from equipoise.study.names import wrapped
from equipoise.study.pictures.style import ACCENT, GREY, INK, grid
from equipoise.study.results import Results

__all__ = ["loss_distribution_picture"]

_BINS = 24


def loss_distribution_picture(results: Results) -> Figure | None:
    """A histogram over tasks and seeds of the last epoch's losses, each over the task's first loss."""
    losses = {name: [value for own in relative_losses(results, name) for value in own] for name in results.ranking()}
    losses = {name: [value for value in own if math.isfinite(value) and value > 0] for name, own in losses.items()}
    shown = [name for name, own in losses.items() if own]
    if not shown:
        return None
    every = np.concatenate([losses[name] for name in shown])
    low, high = every.min() / 1.3, every.max() * 1.3
    edges = np.geomspace(low, high, _BINS + 1)
    columns = min((4, 3), key=lambda number: -len(shown) % number)
    figure, panels = grid(len(shown), columns=columns, width=2.6, height=1.7, sharex=True, sharey=True)
    for position, (name, axes) in enumerate(zip(shown, panels, strict=True)):
        shares = np.full(len(losses[name]), 1.0 / len(losses[name]))
        axes.hist(losses[name], bins=edges.tolist(), weights=shares, color=ACCENT, edgecolor="white", linewidth=0.5, zorder=3)
        axes.axvline(float(np.mean(losses[name])), color=INK, linewidth=1.2, linestyle="--", zorder=4)
        axes.axvline(1.0, color=GREY, linewidth=1.2, zorder=2)
        axes.set_xscale("log")
        axes.set_title(wrapped(results.short(name), 22), loc="left", fontsize=10, fontweight="bold")
        if position % columns == 0:
            axes.set_ylabel("share of tasks")
        if position + columns >= len(shown):
            axes.set_xlabel("loss over first loss")
    return figure
