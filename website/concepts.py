"""The pictures of "The ideas in pictures": ``python -m website.concepts`` draws them into ``docs/pictures/ideas``.

Where a picture shows what a method does, the method does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equipoise as eq
from equipoise.blackbox import ASMG
from website.pages import ROOT
from website.pictures import ACCENT, FRONT, INK, QUIET

__all__ = ["FOLDER", "PICTURES", "draw"]

FOLDER = ROOT / "docs" / "pictures" / "ideas"
GREEN, VIOLET = "#15803d", "#7c3aed"


def draw(folder: Path = FOLDER) -> list[Path]:
    """Draws all pictures; the same code draws the same files."""
    import matplotlib
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context({"svg.hashsalt": "equipoise", "svg.fonttype": "none", "font.size": 10, "text.color": INK}):
        for name, (panels, drawn) in PICTURES.items():
            figure = Figure(figsize=(3.9 * panels, 3.1), layout="constrained")
            drawn(*figure.subplots(1, panels, squeeze=False)[0])
            made.append(folder / f"{name}.svg")
            figure.savefig(made[-1], metadata={"Date": None})
    return made


def _arrow(
    axes: Any, tip: Any, color: str, label: str = "", *, tail: Any = (0.0, 0.0), width: float = 2.0, style: str = "-"
) -> None:
    arrow = {"arrowstyle": "-|>", "color": color, "linewidth": width, "linestyle": style, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tuple(map(float, tip)), tuple(map(float, tail)), arrowprops=arrow)
    if label:
        along = np.asarray(tip, float) - np.asarray(tail, float)
        place = np.asarray(tip, float) + 0.12 * along / np.linalg.norm(along)
        axes.text(*place, label, color=color, ha="center", va="center")


def _plane(axes: Any, title: str, x: tuple[float, float], y: tuple[float, float]) -> None:
    axes.set(xticks=[], yticks=[], xlim=x, ylim=y, aspect="equal")
    axes.set_title(title, fontsize=10)
    for side in axes.spines.values():
        side.set_color("#d6dbe1")


def _conflict(left: Any, right: Any) -> None:
    """A loud gradient and a quiet one that it opposes; and two that get on."""
    for axes, quiet, title in (
        (left, (-0.55, 0.5), "conflict: the sum raises task 2's loss"),
        (right, (0.3, 0.7), "no conflict"),
    ):
        loud, other = np.array((1.5, 0.25)), np.array(quiet)
        mean = (loud + other) / 2
        # Where steps along a direction would raise the second loss.
        normal = other / np.linalg.norm(other)
        side = np.array((-normal[1], normal[0]))
        corners = [side * 4, -side * 4, -side * 4 - normal * 4, side * 4 - normal * 4]
        axes.fill(*zip(*corners, strict=True), color=ACCENT, alpha=0.08)
        _arrow(axes, loud, FRONT, "g₁")
        _arrow(axes, other, ACCENT, "g₂")
        _arrow(axes, mean, INK, "mean", style="--")
        _plane(axes, title, (-1.1, 2.0), (-0.9, 1.3))
    left.text(1.9, -0.8, "shaded: task 2 loses", color=ACCENT, ha="right", fontsize=9)


def _balancing(left: Any, right: Any) -> None:
    """What three methods make of two gradients that conflict, and how each loss falls along them."""
    rows = torch.tensor([[1.5, 0.25], [-0.55, 0.5]], dtype=torch.float64)
    gramian = rows @ rows.T
    methods = {"ls": INK, "mgda": VIOLET, "nash-mtl": GREEN}
    _arrow(left, rows[0], QUIET, "g₁")
    _arrow(left, rows[1], QUIET, "g₂")
    progress = {}
    for name, color in methods.items():
        weights = torch.ones(2, dtype=torch.float64) if name == "ls" else eq.balancer(name).weights(gramian)
        direction = weights @ rows
        direction = direction / direction.norm()
        progress[name] = (rows @ direction / rows.norm(dim=1)).tolist()
        _arrow(left, direction, color)
        beside = {"ls": (0.18, 0.06), "mgda": (-0.38, 0.08), "nash-mtl": (0.3, 0.12)}[name]
        left.text(*(direction.numpy() + beside), name, color=color, ha="center", va="center")
    _plane(left, "directions of length 1", (-1.1, 2.0), (-0.5, 1.4))
    for place, (name, color) in enumerate(methods.items()):
        right.bar([place - 0.18, place + 0.18], progress[name], width=0.32, color=color, alpha=0.85)
        for offset, value, task in zip((-0.18, 0.18), progress[name], ("1", "2"), strict=True):
            right.text(place + offset, max(value, 0) + 0.03, f"task {task}", ha="center", fontsize=8)
    right.axhline(0, color=INK, linewidth=0.8)
    right.set(xticks=range(3), xticklabels=list(methods), ylim=(-0.5, 1.15))
    right.set_title("cosine with each gradient: above 0, the loss falls", fontsize=10)


def _teleporting(axes: Any, over: Any) -> None:
    """Points of equal total loss, coloured by how well the gradients agree there, and a move between two of them."""
    from matplotlib.collections import LineCollection

    centers = torch.tensor([[-1.0, 0.0], [1.0, 0.4]], dtype=torch.float64)
    steep = torch.tensor([[0.4, 2.2], [1.6, 0.5]], dtype=torch.float64)

    def losses(points: torch.Tensor) -> torch.Tensor:
        return (steep * (points[..., None, :] - centers).square()).sum(-1)

    grid = torch.stack(torch.meshgrid(torch.linspace(-2.4, 2.6, 160), torch.linspace(-1.6, 2.0, 160), indexing="xy"), -1)
    total = losses(grid.double()).sum(-1)
    axes.contour(grid[..., 0], grid[..., 1], total, levels=8, colors=QUIET, linewidths=0.5)
    level = 4.0
    line = axes.contour(grid[..., 0], grid[..., 1], total, levels=[level], colors="none").allsegs[0][0]
    points = torch.from_numpy(np.array(line))
    rows = 2 * steep * (points[:, None, :] - centers)
    cosines = torch.nn.functional.cosine_similarity(rows[:, 0], rows[:, 1], dim=-1)
    drawn = LineCollection(np.stack([line[:-1], line[1:]], 1), cmap="coolwarm_r", linewidths=4)
    drawn.set_array(cosines[:-1].numpy())
    axes.add_collection(drawn)
    worst, best = int(cosines.argmin()), int(cosines.argmax())
    _arrow(axes, line[best], INK, "", tail=line[worst])
    axes.text(*(line[worst] + (0.1, 0.15)), "θ", fontsize=12)
    axes.text(*(line[best] + (0.1, 0.15)), "θ + Δθ", fontsize=12)
    _plane(axes, "one level line of the total loss", (-2.4, 2.6), (-1.6, 2.0))
    order = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    over.plot(order / order[-1], cosines, color=INK)
    for index, text in ((worst, "θ"), (best, "θ + Δθ")):
        over.plot(order[index] / order[-1], cosines[index], "o", color=ACCENT)
        over.annotate(text, (order[index] / order[-1], float(cosines[index])), (4, 6), textcoords="offset points")
    over.axhline(0, color=QUIET, linewidth=0.8)
    over.set(xticks=[], xlabel="along that line", ylim=(-1.15, 1.2))
    over.set_title("cosine of the two gradients", fontsize=10)


def _discrepancy(left: Any, right: Any) -> None:
    """Losses and the gaps between neighbours, before and after control."""
    for axes, heights, title in (
        (left, (0.9, 0.35, 1.3, 0.5, 1.05), "far apart: the gaps are large"),
        (right, (0.62, 0.5, 0.68, 0.55, 0.6), "controlled: the gaps are small"),
    ):
        axes.plot(range(5), heights, "o", color=FRONT, markersize=9)
        for k, (a, b) in enumerate(pairwise(heights)):
            axes.plot((k, k + 1), (a, a), color=QUIET, linewidth=0.8, linestyle=":")
            _arrow(axes, (k + 1, b), ACCENT, tail=(k + 1, a), width=1.6)
        axes.set(xticks=range(5), xticklabels=[f"ℓ{'₁₂₃₄₅'[k]}" for k in range(5)], yticks=[], ylim=(0, 1.5), xlim=(-0.5, 4.5))
        axes.set_title(f"{title}, Σ = {np.abs(np.diff(heights)).sum():.2f}", fontsize=10)


def _two_levels(left: Any, right: Any) -> None:
    """A lower level's solution for every upper variable, and two upper objectives along it."""
    alpha, omega = np.meshgrid(np.linspace(-0.5, 3.5, 120), np.linspace(-0.5, 3.5, 120))
    solution = lambda a: 0.6 * a + 0.5 + 0.35 * np.sin(1.6 * a)  # noqa: E731
    left.contour(alpha, omega, (omega - solution(alpha)) ** 2, levels=(0.1, 0.4, 1.0, 2.0, 4.0), colors=QUIET, linewidths=0.6)
    line = np.linspace(-0.5, 3.5, 200)
    left.plot(line, solution(line), color=ACCENT, linewidth=2.5)
    left.text(0.1, 1.75, "ω*(α): what the lower\nlevel answers", color=ACCENT, fontsize=9)
    left.set(xlabel="α, above", ylabel="ω, below", xticks=[], yticks=[])
    left.set_title("the lower loss, and its minimum for each α", fontsize=10)
    first, second = (solution(line) - 1.2) ** 2, (solution(line) - 2.0) ** 2
    right.plot(line, first, color=FRONT, label="F₁(α, ω*(α))")
    right.plot(line, second, color=GREEN, label="F₂(α, ω*(α))")
    between = (solution(line) >= 1.2) & (solution(line) <= 2.0)
    right.fill_between(line, 0, 2, where=between, color=QUIET, alpha=0.25, linewidth=0)
    right.set(xlabel="α, above", xticks=[], yticks=[], ylim=(0, 2))
    right.legend(fontsize=8, loc="upper center")
    right.set_title("two objectives above; gray: Pareto optimal", fontsize=10)


def _black_box(left: Any, right: Any) -> None:
    """A search by ASMG: where it draws at four times, and the mean outputs."""
    targets = np.array([[1.0, 0.0], [0.0, 1.0]])

    def outputs(points: np.ndarray) -> np.ndarray:
        return ((points[:, None, :] - targets) ** 2).sum(-1)

    optimizer = ASMG(np.array([3.2, 2.6]), std=0.5, samples=20, lr=0.1, seed=0)
    grid = np.stack(np.meshgrid(np.linspace(-1, 4.5, 120), np.linspace(-1, 4, 120)), -1)
    left.contour(
        grid[..., 0],
        grid[..., 1],
        outputs(grid.reshape(-1, 2)).max(-1).reshape(120, 120),
        levels=10,
        colors=QUIET,
        linewidths=0.5,
    )
    left.plot(*targets.T, color=FRONT, linewidth=4, alpha=0.6, solid_capstyle="round")
    curve = []
    for iteration in range(120):
        points = optimizer.ask()
        values = outputs(np.asarray(points))
        if iteration in (0, 30, 60, 119):
            left.plot(*np.asarray(points).T, ".", color=ACCENT, markersize=3)
            turn = np.linspace(0, 2 * math.pi, 80)
            left.plot(
                *(optimizer.mean[:, None] + 2 * optimizer.std[:, None] * np.stack([np.cos(turn), np.sin(turn)])), color=INK
            )
        curve.append(values.mean(0))
        optimizer.tell(values)
    _plane(left, "where it asks; blue: the Pareto set", (-1, 4.5), (-1, 4))
    right.plot(np.array(curve)[:, 0], color=FRONT, label="output 1")
    right.plot(np.array(curve)[:, 1], color=GREEN, label="output 2")
    right.set(xlabel="iterations of 20 queries", yscale="log")
    right.legend(fontsize=8)
    right.set_title("mean outputs of what it asked", fontsize=10)


def _positions(left: Any, right: Any) -> None:
    """Features that flow along a line, and the tasks' places on it."""
    positions = {"left": -0.75, "right": -0.55, "sum": 0.15, "ink": 0.8}
    times = np.linspace(-1, 1, 200)
    for start in np.linspace(-1.2, 1.2, 7):
        way, value = [], start
        for t in times:
            way.append(value)
            value += (times[1] - times[0]) * (0.9 * math.sin(1.7 * value + 1.5 * t))
        left.plot(times, way, color=QUIET, linewidth=1.2)
    for axes in (left, right):
        for place, color in zip(positions.values(), (FRONT, FRONT, GREEN, ACCENT), strict=True):
            axes.axvline(place, color=color, linestyle="--", linewidth=1.4)
    left.set(xlabel="position t", ylabel="features", xticks=(-1, 0, 1), yticks=[], xlim=(-1, 1))
    left.set_title("features flow along t", fontsize=10)
    right.set(xlabel="position t", xticks=(-1, 0, 1), yticks=[], xlim=(-1, 1), ylim=(0, 1))
    for height, (name, place) in zip((0.75, 0.5, 0.6, 0.6), positions.items(), strict=True):
        right.text(place, height, f" {name}", fontsize=10, backgroundcolor="white", ha="center")
    right.set_title("each task reads at a place that it learns", fontsize=10)


PICTURES: dict[str, tuple[int, Callable[..., None]]] = {
    "conflict": (2, _conflict),
    "balancing": (2, _balancing),
    "teleporting": (2, _teleporting),
    "discrepancy": (2, _discrepancy),
    "two-levels": (2, _two_levels),
    "black-box": (2, _black_box),
    "positions": (2, _positions),
}
"""Name → how many panels, and who draws them."""

if __name__ == "__main__":
    for file in draw():
        print(file.relative_to(ROOT))
