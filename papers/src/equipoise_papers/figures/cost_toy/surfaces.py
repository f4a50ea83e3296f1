"""The problem itself: the surfaces of both losses and of their mean."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from equipoise_papers.toys import ParetoSet, TwoTasks

__all__ = ["surfaces_picture"]

_SPAN = 10.0
_FINENESS = 161


def surfaces_picture(problem: TwoTasks) -> Figure:
    """Three surfaces, with the Pareto set on them."""
    figure = Figure(figsize=(10.5, 3.7), layout="constrained", facecolor="white")
    line = torch.linspace(-_SPAN, _SPAN, _FINENESS, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    losses = problem.losses(points).numpy()
    pareto = ParetoSet(problem)
    plane = points.numpy()
    surfaces = (
        ("task 1", losses[..., 0], pareto.front[:, 0]),
        ("task 2", losses[..., 1], pareto.front[:, 1]),
        ("mean", losses.mean(-1), pareto.front.mean(-1)),
    )
    for number, (title, heights, on_set) in enumerate(surfaces):
        axes = figure.add_subplot(1, 3, number + 1, projection="3d", computed_zorder=False)
        axes.plot_surface(plane[..., 0], plane[..., 1], heights, cmap="viridis", rstride=2, cstride=2, linewidth=0, zorder=1)
        axes.plot(*pareto.points.T, on_set + 0.3, color="#D55E00", linewidth=2.5, zorder=2)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("$x_1$", labelpad=-6)
        axes.set_ylabel("$x_2$", labelpad=-6)
        axes.set_xticks([-10, 0, 10])
        axes.set_yticks([-10, 0, 10])
        axes.set_zticks(np.arange(-20, 21, 10))
        axes.tick_params(labelsize=8, pad=-2)
        axes.view_init(elev=28, azim=-58)
        axes.set_box_aspect((1, 1, 0.75), zoom=1.0)
    return figure
