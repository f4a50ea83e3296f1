"""Two pictures of a method: its paths on a problem with two parameters, and its direction among three gradients of the plane.

Both are made by the method itself, in training steps of :class:`~equipoise.MultiTaskOptimizer`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import OnFeatures
from equipoise.balance.registry import MethodInfo
from equipoise.errors import require

__all__ = ["GRADIENTS", "direction_of", "draw", "draw_all", "drawable"]

STARTS = ((-2.2, 2.0), (-1.6, -1.6), (0.2, -2.0), (2.2, -1.2), (1.9, 2.2))
STEEP = torch.tensor([[1.0, 0.15], [1.5, 10.0]], dtype=torch.float64)
CENTERS = torch.tensor([[-1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
STEPS = 400
LOOKS = 200
GRADIENTS = torch.tensor([[1.6, 0.35], [0.25, 0.9], [-0.75, 0.45]])
HEIGHTS = torch.tensor([1.6, 0.9, 0.45])
TASKS = ("first", "second", "third")
INK, QUIET, ACCENT, FRONT = "#1f2933", "#9aa5b1", "#c2410c", "#2563eb"


class Point(nn.Module):
    """A point of the plane; all that the tasks share."""

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor(start))


def losses_of(place: Tensor) -> Tensor:
    """Two bowls whose long axes cross, the second ten times as loud as the first; both at least 0.05."""
    return 0.05 + (STEEP.to(place) * (place[..., None, :] - CENTERS.to(place)).square()).sum(-1)


def drawable(info: MethodInfo) -> bool:
    """Whether a method can act on a point: those that act on a network's features cannot."""
    return not issubclass(info.cls, OnFeatures)


def draw_all(infos: Sequence[MethodInfo], folder: Path) -> None:
    """Draws both pictures of each method into a folder, unless the code that is there now has drawn them already."""
    code = hashlib.sha256()
    for file in sorted([Path(__file__), *Path(eq.__file__).parent.rglob("*.py")]):
        code.update(file.read_bytes())
    known = folder / "drawn-by.txt"
    done = known.read_text(encoding="utf-8").split() if known.is_file() else []
    if done[:1] != [code.hexdigest()]:
        done = [code.hexdigest()]
    for info in infos:
        if info.name not in done:
            draw(info, folder)
            done.append(info.name)
            known.write_text("\n".join(done), encoding="utf-8")  # so that a build that was stopped goes on


def draw(info: MethodInfo, folder: Path) -> tuple[Path, Path]:
    """Draws both pictures of a method as ``NAME-path.svg`` and ``NAME-direction.svg``."""
    plotted = require("matplotlib.figure", "study").Figure
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{info.name}-path.svg", folder / f"{info.name}-direction.svg"
    for file, drawn in zip(made, (_paths, _direction), strict=True):
        figure = plotted(figsize=(4.2, 3.6), layout="constrained")
        drawn(info, figure.add_subplot())
        figure.savefig(file, metadata={"Date": None})
    return made


def _trained(
    info: MethodInfo,
    start: tuple[float, float],
    losses: Callable[[Tensor], Tensor],
    optimizer: Callable[..., torch.optim.Optimizer],
) -> tuple[Point, eq.MultiTaskOptimizer]:
    torch.manual_seed(0)
    model = Point(start)
    names = TASKS[: len(losses(model.place.detach()))]

    def evaluated(model: nn.Module, batch: object) -> dict[str, Tensor]:
        return dict(zip(names, losses(model.place), strict=True))

    batches = [0] if issubclass(info.cls, DoubleSampling) else None
    objective = eq.Objective(model, evaluated, tasks=names, batches=batches)
    return model, eq.MultiTaskOptimizer(objective, optimizer(model.parameters()), info.make())


def _paths(info: MethodInfo, axes: Any) -> None:
    """Five paths over the level lines of both losses, and the Pareto set."""
    grid = torch.stack(torch.meshgrid(torch.linspace(-2.7, 2.7, 200), torch.linspace(-2.5, 2.7, 200), indexing="xy"), -1)
    values = losses_of(grid)
    for task in range(2):
        levels = np.quantile(values[..., task], (0.03, 0.1, 0.25, 0.5, 0.75))
        axes.contour(grid[..., 0], grid[..., 1], values[..., task], levels=levels, colors=QUIET, linewidths=0.6, alpha=0.8)
    # Where a weighted sum of the two bowls is least, for every weight.
    share = 10.0 ** torch.linspace(-4, 4, 300, dtype=torch.float64)[:, None]
    pareto = (share * STEEP[0] * CENTERS[0] + STEEP[1] * CENTERS[1]) / (share * STEEP[0] + STEEP[1])
    axes.plot(*pareto.T, color=FRONT, linewidth=3, alpha=0.6, solid_capstyle="round")
    for start in STARTS:
        model, mtl = _trained(info, start, losses_of, lambda p: torch.optim.Adam(p, lr=0.02))
        visited = [model.place.detach().clone()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(STEPS):
                mtl.step(0)
                visited.append(model.place.detach().clone())
                if step % 20 == 19:
                    mtl.end_epoch()
        way = torch.stack(visited).numpy()
        axes.plot(*way.T, color=ACCENT, linewidth=1.4)
        axes.plot(*way[0], "o", color=INK, markersize=4)
        axes.plot(*way[-1], "*", color=ACCENT, markersize=9)
    axes.set(xticks=[], yticks=[], xlim=(-2.7, 2.7), ylim=(-2.5, 2.7))
    axes.set_title("five starts, 400 steps of Adam", fontsize=9, color=INK)


def direction_of(info: MethodInfo, looks: int = LOOKS) -> Tensor:
    """Where the last of so many steps at one point would lead ``[2]``, of length one; for methods that draw, their mean."""
    model, mtl = _trained(info, (0.0, 0.0), lambda p: HEIGHTS + GRADIENTS @ p, lambda p: torch.optim.SGD(p, lr=1e-4))
    moved = torch.zeros(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(looks):
            mtl.step(0)
            moved = moved * 0.9 - model.place.detach()
            with torch.no_grad():
                model.place.zero_()
            if step % 20 == 19:
                mtl.end_epoch()
    return moved / moved.norm().clamp_min(1e-12)


def _direction(info: MethodInfo, axes: Any) -> None:
    """Three gradients, the direction of the method and that of their mean."""
    for name, gradient in zip(TASKS, GRADIENTS, strict=True):
        _arrow(axes, gradient, QUIET, 1.6)
        axes.annotate(name, gradient.tolist(), color=INK, fontsize=8, xytext=(3, 3), textcoords="offset points")
    _arrow(axes, GRADIENTS.mean(0) / GRADIENTS.mean(0).norm(), FRONT, 1.6, "--")
    _arrow(axes, direction_of(info), ACCENT, 2.4)
    axes.set(xlim=(-1.2, 2.0), ylim=(-0.6, 1.5), xticks=[], yticks=[], aspect="equal")
    axes.set_title("its direction; dashed: the mean's", fontsize=9, color=INK)


def _arrow(axes: Any, tip: Tensor, color: str, width: float, style: str = "-") -> None:
    axes.annotate(
        "", tip.tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": width, "linestyle": style}
    )
