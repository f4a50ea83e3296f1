"""The same trajectories in the plane of the two losses, with the Pareto front."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equipoise.study.pictures.style import COLOURS, INK, grid
from equipoise_papers.figures.cost_toy.paths import path
from equipoise_papers.figures.cost_toy.run import Array, Trajectories
from equipoise_papers.toys import ParetoSet

__all__ = ["front_picture"]


def front_picture(trajectories: Trajectories, balancer: str) -> Figure:
    """One balancer, alone and with COST (its first seed)."""
    figure, panels = grid(2, columns=2, width=4.4, height=3.9, sharex=True, sharey=True)
    front = ParetoSet(trajectories.problem).front
    name = "equal weighting" if balancer == "ls" else balancer
    for axes, teleporting in zip(panels, (False, True), strict=True):
        axes.plot(*front.T, color=INK, linewidth=5, alpha=0.35, solid_capstyle="round", zorder=2)
        _losses(axes, trajectories, balancer, teleporting=teleporting)
        axes.set_title(f"COST + {name}, seed {trajectories.settings.seeds[0]}" if teleporting else name)
        axes.set_xlabel("loss of task 1")
    panels[0].set_ylabel("loss of task 2")
    handles = (
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=5.5, label="start"),
        Line2D([], [], color=INK, marker="*", linestyle="", markersize=10, label="end"),
        Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label="teleport"),
        Line2D([], [], color=INK, linewidth=5, alpha=0.35, label="Pareto front"),
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _losses(axes: Axes, trajectories: Trajectories, balancer: str, *, teleporting: bool) -> None:
    for number in range(len(trajectories.settings.starts)):
        row = trajectories.rows_of(balancer, number, teleporting=teleporting)[0]
        colour = COLOURS[number % len(COLOURS)]
        own = path(trajectories, row)
        for piece in own.pieces:
            axes.plot(*_at(trajectories, piece).T, color=colour, linewidth=1.4, zorder=4)
        for jump in own.jumps:
            axes.plot(*_at(trajectories, jump).T, color=colour, linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)
        axes.plot(*_at(trajectories, own.start[None])[0], marker="o", markersize=5.5, color=INK, zorder=5)
        end = _at(trajectories, own.end[None])[0]
        axes.plot(*end, marker="*", markersize=11, color=colour, markeredgecolor="white", markeredgewidth=0.7, zorder=6)


def _at(trajectories: Trajectories, points: Array) -> Array:
    losses: Array = trajectories.problem.losses(torch.from_numpy(points)).numpy()
    return losses
