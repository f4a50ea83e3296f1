"""The trajectories over the mean loss (Figure 6) and in the plane of the losses; the surfaces of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from equipoise.study.pictures.style import COLORS, INK, grid
from equipoise_papers.figures.cost_toy.run import CostToyTrajectories
from equipoise_papers.toys import ParetoCurve, TwoTasks

__all__ = [
    "SPAN",
    "TrajectoryPath",
    "balancers_picture",
    "front_picture",
    "mean_loss",
    "path",
    "plane_picture",
    "surfaces_picture",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrajectoryPath:
    """One trajectory.

    Attributes:
        pieces: positions between teleports, each ``[t, 2]``.
        jumps: a teleport each, from where to where, ``[2, 2]``.
    """

    pieces: tuple[Array, ...]
    jumps: tuple[Array, ...]

    @property
    def start(self) -> Array:
        """Where it begins, ``[2]``."""
        first: Array = self.pieces[0][0]
        return first

    @property
    def end(self) -> Array:
        """Where it ends, ``[2]``."""
        last: Array = self.pieces[-1][-1]
        return last


def path(trajectories: CostToyTrajectories, row: int) -> TrajectoryPath:
    """Cuts a trajectory at its teleports."""
    positions, steps = trajectories.positions[:, row], trajectories.steps
    pieces, jumps = [], []
    begin, head = 0, positions[:0]
    for attempt in trajectories.attempts:
        if attempt.row != row or not attempt.accepted:
            continue
        # What was recorded after s + 1 steps was recorded after the jump that begins step s.
        cut = int(np.searchsorted(steps, attempt.step + 1))
        jump = np.asarray([attempt.origin, attempt.landing])
        pieces.append(np.concatenate((head, positions[begin:cut], jump[:1])))
        jumps.append(jump)
        begin, head = cut, jump[1:]
    pieces.append(np.concatenate((head, positions[begin:])))
    return TrajectoryPath(tuple(pieces), tuple(jumps))


SPAN = 11.5
_FINENESS = 300
_LEVELS = 14


def plane_picture(trajectories: CostToyTrajectories, balancer: str) -> Figure:
    """One balancer, alone and with COST."""
    figure, (alone, with_cost) = grid(2, columns=2, width=4.4, height=4.2, sharex=True, sharey=True)
    pareto = ParetoCurve(trajectories.problem)
    _plane(alone, trajectories, pareto, balancer, teleporting=False)
    _plane(with_cost, trajectories, pareto, balancer, teleporting=True)
    alone.set_title(_name(balancer))
    with_cost.set_title(f"COST + {_name(balancer)}")
    alone.set_ylabel("$x_2$")
    for axes in (alone, with_cost):
        axes.set_xlabel("$x_1$")
    _legend(figure)
    return figure


def balancers_picture(trajectories: CostToyTrajectories) -> Figure:
    """All balancers: alone above, with COST below."""
    balancers = trajectories.settings.balancers
    count = len(balancers)
    figure, panels = grid(2 * count, columns=count, width=2.6, height=2.6, sharex=True, sharey=True)
    pareto = ParetoCurve(trajectories.problem)
    for number, balancer in enumerate(balancers):
        for axes, teleporting in ((panels[number], False), (panels[count + number], True)):
            _plane(axes, trajectories, pareto, balancer, teleporting=teleporting)
            axes.set_title(f"COST + {_name(balancer)}" if teleporting else _name(balancer), fontsize=9)
        panels[count + number].set_xlabel("$x_1$")
    for axes in (panels[0], panels[count]):
        axes.set_ylabel("$x_2$")
    _legend(figure)
    return figure


def _plane(axes: Axes, trajectories: CostToyTrajectories, pareto: ParetoCurve, balancer: str, *, teleporting: bool) -> None:
    mean_loss(axes, trajectories.problem)
    axes.plot(*pareto.points.T, color=INK, linewidth=5, alpha=0.35, solid_capstyle="round", zorder=2)
    for number in range(len(trajectories.settings.starts)):
        rows = trajectories.rows_of(balancer, number, teleporting=teleporting)
        color = COLORS[number % len(COLORS)]
        for order, row in enumerate(rows):
            # The first seed is drawn to be followed, the others to show how much they differ.
            strength = 1.0 if order == 0 else 0.35
            own = path(trajectories, row)
            for piece in own.pieces:
                axes.plot(*piece.T, color=color, linewidth=1.6 if order == 0 else 0.8, alpha=strength, zorder=4 - order / 100)
            for jump in own.jumps:
                axes.plot(*jump.T, color=color, linewidth=0.9, alpha=strength, linestyle=(0, (3, 2)), zorder=3)
            axes.plot(*own.end, marker="*", markersize=11, color=color, markeredgecolor="white", markeredgewidth=0.7, zorder=6)
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


def front_picture(trajectories: CostToyTrajectories, balancer: str) -> Figure:
    """One balancer, alone and with COST (its first seed)."""
    figure, panels = grid(2, columns=2, width=4.4, height=3.9, sharex=True, sharey=True)
    front = ParetoCurve(trajectories.problem).front
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


def _losses(axes: Axes, trajectories: CostToyTrajectories, balancer: str, *, teleporting: bool) -> None:
    for number in range(len(trajectories.settings.starts)):
        row = trajectories.rows_of(balancer, number, teleporting=teleporting)[0]
        color = COLORS[number % len(COLORS)]
        own = path(trajectories, row)
        for piece in own.pieces:
            axes.plot(*_at(trajectories, piece).T, color=color, linewidth=1.4, zorder=4)
        for jump in own.jumps:
            axes.plot(*_at(trajectories, jump).T, color=color, linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)
        axes.plot(*_at(trajectories, own.start[None])[0], marker="o", markersize=5.5, color=INK, zorder=5)
        end = _at(trajectories, own.end[None])[0]
        axes.plot(*end, marker="*", markersize=11, color=color, markeredgecolor="white", markeredgewidth=0.7, zorder=6)


def _at(trajectories: CostToyTrajectories, points: Array) -> Array:
    losses: Array = trajectories.problem.losses(torch.from_numpy(points)).numpy()
    return losses


_SURFACE_SPAN = 10.0
_SURFACE_FINENESS = 161


def surfaces_picture(problem: TwoTasks) -> Figure:
    """Three surfaces, with the Pareto set on them."""
    figure = Figure(figsize=(10.5, 3.7), layout="constrained", facecolor="white")
    line = torch.linspace(-_SURFACE_SPAN, _SURFACE_SPAN, _SURFACE_FINENESS, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    losses = problem.losses(points).numpy()
    pareto = ParetoCurve(problem)
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
