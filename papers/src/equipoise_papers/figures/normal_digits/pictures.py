"""Positions over training (Figure 5.2), and what they say about the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equipoise.study.pictures.style import COLOURS, INK, grid
from equipoise_papers.figures.normal_digits.networks import NETWORKS

__all__ = ["positions_picture", "relations_picture"]

Runs = Sequence[Mapping[str, Any]]


def positions_picture(results: Mapping[str, Runs], tasks: Sequence[str]) -> Figure:
    """A panel a network: positions over the steps, thin for each seed and thick for their median.

    Not the mean: seeds may end on different sides of 0, and nothing lies between.
    """
    figure, panels = grid(len(results), columns=3, width=4.0, height=3.4)
    for axes, (network, runs) in zip(panels, results.items(), strict=True):
        for number, task in enumerate(tasks):
            colour = COLOURS[number % len(COLOURS)]
            curves = np.array([run["positions"][task] for run in runs])
            axes.plot(runs[0]["steps"], curves.T, color=colour, linewidth=0.6, alpha=0.45)
            axes.plot(runs[0]["steps"], np.median(curves, axis=0), color=colour, linewidth=2.0, label=task)
        axes.set_title(NETWORKS[network], color=INK)
        axes.set_xlabel("step")
    panels[0].set_ylabel("task position")
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def relations_picture(runs: Runs, tasks: Sequence[str]) -> Figure:
    """Distances of NORMAL's positions at the end, next to the cosines of the tasks' gradients: means over the seeds."""
    ends = np.array([[run["positions"][task][-1] for task in tasks] for run in runs])
    apart = np.abs(ends[:, :, None] - ends[:, None, :]).mean(0)
    cosines = np.array([run["cosines"] for run in runs]).mean(0)
    figure, (left, right) = grid(2, columns=2, width=3.6, height=3.2)
    # Dark is close and alike in both.
    _matrix(left, apart, tasks, "distance of task positions", "Blues_r", (0.0, max(apart.max(), 1e-9)))
    _matrix(right, cosines, tasks, "mean cosine of task gradients", "RdBu", (-1.0, 1.0))
    return figure


def _matrix(
    axes: Axes, values: NDArray[np.float64], tasks: Sequence[str], title: str, colours: str, limits: tuple[float, float]
) -> None:
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    for row in range(len(tasks)):
        for column in range(len(tasks)):
            red, green, blue, _ = image.cmap(image.norm(values[row, column]))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            text = f"{values[row, column]:.2f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, color=INK)
