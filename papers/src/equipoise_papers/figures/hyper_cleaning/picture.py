"""Test accuracy of the methods, ROC curves of the weights, and the way there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from equipoise.study.pictures.style import COLOURS, GREY, STYLES, grid
from equipoise_papers.figures.hyper_cleaning.settings import METHODS, Settings
from equipoise_papers.figures.hyper_cleaning.train import Outcome

__all__ = ["picture"]


def picture(outcomes: Sequence[Outcome], settings: Settings) -> Figure:
    """Three panels: accuracy by data set, ROC curves (first seed), validation accuracy over the outer steps."""
    figure, (accuracy, roc, history) = grid(3, columns=3, width=3.9, height=3.3)
    tasks = list(outcomes[0].accuracy)
    for position, method in enumerate(settings.methods):
        own = [outcome for outcome in outcomes if outcome.method == method]
        colour = GREY if method == "noisy" else COLOURS[position - 1]
        for place, task in enumerate(tasks):
            values = [outcome.accuracy[task] for outcome in own]
            at = place + (position - (len(settings.methods) - 1) / 2) * 0.18
            accuracy.scatter([at] * len(values), values, color=colour, s=18, zorder=3)
            accuracy.hlines(np.mean(values), at - 0.07, at + 0.07, color=colour, linewidth=2.5, zorder=3)
            if own[0].roc:
                label = METHODS[method] if place == 0 else None
                curve = own[0].roc[task]
                roc.plot(*curve, STYLES[place], color=colour, linewidth=1.5, label=label)
        curves = np.array([outcome.history for outcome in own])
        looks = np.minimum(np.arange(1, curves.shape[1] + 1) * settings.evaluate_every, settings.steps)
        history.plot(looks, curves.mean(0), color=colour, linewidth=1.5, label=METHODS[method])
    accuracy.set_xticks(range(len(tasks)), tasks)
    accuracy.set_title("test accuracy (%), a point a seed")
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=":")
    roc.set_title("weights as a test for clean labels")
    roc.set_xlabel("corrupted labels passed")
    roc.set_ylabel("clean labels passed")
    for place, task in enumerate(tasks):
        roc.plot([], [], STYLES[place], color=GREY, linewidth=1.5, label=task)
    roc.legend(frameon=False, fontsize=8, loc="lower right")
    history.set_title("accuracy on the second validation set (%)")
    history.set_xlabel("outer step")
    history.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
