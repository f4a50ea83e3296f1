"""Figure 6: trajectories in the plane of the parameters, over the mean loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equipoise.study.pictures.style import COLOURS, INK, grid
from equipoise_papers.figures.cost_toy.paths import path
from equipoise_papers.figures.cost_toy.run import Trajectories
from equipoise_papers.toys import ParetoSet, TwoTasks

__all__ = ["SPAN", "balancers_picture", "mean_loss", "plane_picture"]

SPAN = 11.5
_FINENESS = 300
_LEVELS = 14


def plane_picture(trajectories: Trajectories, balancer: str) -> Figure:
    """One balancer, alone and with COST."""
    figure, (alone, with_cost) = grid(2, columns=2, width=4.4, height=4.2, sharex=True, sharey=True)
    pareto = ParetoSet(trajectories.problem)
    _plane(alone, trajectories, pareto, balancer, teleporting=False)
    _plane(with_cost, trajectories, pareto, balancer, teleporting=True)
    alone.set_title(_name(balancer))
    with_cost.set_title(f"COST + {_name(balancer)}")
    alone.set_ylabel("$x_2$")
    for axes in (alone, with_cost):
        axes.set_xlabel("$x_1$")
    _legend(figure)
    return figure


def balancers_picture(trajectories: Trajectories) -> Figure:
    """All balancers: alone above, with COST below."""
    balancers = trajectories.settings.balancers
    count = len(balancers)
    figure, panels = grid(2 * count, columns=count, width=2.6, height=2.6, sharex=True, sharey=True)
    pareto = ParetoSet(trajectories.problem)
    for number, balancer in enumerate(balancers):
        for axes, teleporting in ((panels[number], False), (panels[count + number], True)):
            _plane(axes, trajectories, pareto, balancer, teleporting=teleporting)
            axes.set_title(f"COST + {_name(balancer)}" if teleporting else _name(balancer), fontsize=9)
        panels[count + number].set_xlabel("$x_1$")
    for axes in (panels[0], panels[count]):
        axes.set_ylabel("$x_2$")
    _legend(figure)
    return figure


def _plane(axes: Axes, trajectories: Trajectories, pareto: ParetoSet, balancer: str, *, teleporting: bool) -> None:
    mean_loss(axes, trajectories.problem)
    axes.plot(*pareto.points.T, color=INK, linewidth=5, alpha=0.35, solid_capstyle="round", zorder=2)
    for number in range(len(trajectories.settings.starts)):
        rows = trajectories.rows_of(balancer, number, teleporting=teleporting)
        colour = COLOURS[number % len(COLOURS)]
        for order, row in enumerate(rows):
            # The first seed is drawn to be followed, the others to show how much they differ.
            strength = 1.0 if order == 0 else 0.35
            own = path(trajectories, row)
            for piece in own.pieces:
                axes.plot(*piece.T, color=colour, linewidth=1.6 if order == 0 else 0.8, alpha=strength, zorder=4 - order / 100)
            for jump in own.jumps:
                axes.plot(*jump.T, color=colour, linewidth=0.9, alpha=strength, linestyle=(0, (3, 2)), zorder=3)
            axes.plot(*own.end, marker="*", markersize=11, color=colour, markeredgecolor="white", markeredgewidth=0.7, zorder=6)
        axes.plot(*trajectories.settings.starts[number], marker="o", markersize=5.5, color=INK, zorder=5)
    axes.set_xlim(-SPAN, SPAN)
    axes.set_ylim(-SPAN, SPAN)
    axes.set_aspect("equal")
    ticks = [-10, -5, 0, 5, 10]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)


def mean_loss(axes: Axes, problem: TwoTasks) -> None:
    """Draws the mean of the two losses in shades."""
    axes.grid(False)
    line = torch.linspace(-SPAN, SPAN, _FINENESS, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    mean = problem.losses(points).mean(-1).numpy()
    # Levels of equal area: evenly spaced ones would show the bowl and hide the valleys.
    levels = np.quantile(mean, np.linspace(0.0, 1.0, _LEVELS + 1))
    shades = {"levels": levels, "norm": BoundaryNorm(levels, 256), "cmap": "Greys_r", "alpha": 0.45, "zorder": 0}
    axes.contourf(line.numpy(), line.numpy(), mean, **shades)
    axes.contour(line.numpy(), line.numpy(), mean, levels=levels, colors="white", linewidths=0.5, linestyles="-", zorder=1)


def _legend(figure: Figure) -> None:
    handles: Sequence[Line2D] = (
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=5.5, label="start"),
        Line2D([], [], color=INK, marker="*", linestyle="", markersize=10, label="end"),
        Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label="teleport"),
        Line2D([], [], color=INK, linewidth=5, alpha=0.35, label="Pareto set"),
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)


def _name(balancer: str) -> str:
    return "equal weighting" if balancer == "ls" else balancer
