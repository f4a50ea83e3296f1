"""Renders the scenes, trains if that is asked for, and writes the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.store import write_json
from equipoise.study.problem import Problem
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.outputs import made_folder
from equipoise_papers.figures.scenes.settings import ScenesFigureSettings
from equipoise_papers.scenes import ROOM_CLASSES, STREET_CLASSES, make_scene

__all__ = ["CLASS_COLORS", "VOID_COLOR", "SceneRow", "make", "of_depth", "of_labels", "of_normals", "picture"]

# Walls and other large surfaces pale, things strong, so that the eye finds the things first.
CLASS_COLORS = {
    "rooms": (
        "#D55E00",  # bed
        "#E6B800",  # books
        "#F2F2EC",  # ceiling
        "#0072B2",  # chair
        "#C2A98A",  # floor
        "#7A4A21",  # furniture
        "#E377C2",  # objects
        "#009E73",  # picture
        "#8E44AD",  # sofa
        "#56B4E9",  # table
        "#222222",  # tv
        "#B9C3CC",  # wall
        "#A6E3F5",  # window
    ),
    "streets": (
        "#A58BB5",  # flat
        "#8C8C8C",  # construction
        "#E69F00",  # object
        "#3F8F3F",  # nature
        "#A9D5F2",  # sky
        "#D7191C",  # human
        "#123F8C",  # vehicle
    ),
}
VOID_COLOR = "#FFFFFF"


def of_labels(label: NDArray[Any], kind: str) -> NDArray[Any]:
    """Labels ``[H, W]`` to colors ``[H, W, 3]``."""
    from matplotlib.colors import to_rgb

    table = np.array([to_rgb(color) for color in (*CLASS_COLORS[kind], VOID_COLOR)])
    return np.asarray(table[label])


def of_depth(nearness: NDArray[Any], low: float, high: float, there: NDArray[Any]) -> NDArray[Any]:
    """How near things are ``[H, W]``, from ``low`` to ``high``, to colors, bright is near; white where nothing is there."""
    from matplotlib import colormaps

    share = np.clip((nearness - low) / (high - low), 0, 1)
    colors = np.asarray(colormaps["viridis"](share))[..., :3]
    return np.where(there[..., None], colors, 1.0)


def of_normals(normal: NDArray[Any]) -> NDArray[Any]:
    """Normals ``[H, W, 3]`` to colors: red to the right, green upwards, blue towards the viewer; white where there is none."""
    return np.where((normal != 0).any(-1, keepdims=True), np.clip(normal / 2 + 0.5, 0, 1), 1.0)


_CLASSES = {"rooms": ROOM_CLASSES, "streets": STREET_CLASSES}
_LEGEND = 0.52  # inches


@dataclass(frozen=True)
class SceneRow:
    """One scene.

    Attributes:
        image: ``[H, W, 3]``.
        label: ``[H, W]``, and the classes predicted, if there is a prediction.
        depth: ``[H, W]``, metres; likewise.
        normal: ``[H, W, 3]``; likewise.
    """

    image: NDArray[Any]
    label: Sequence[NDArray[Any]]
    depth: Sequence[NDArray[Any]]
    normal: Sequence[NDArray[Any]]

    def panels(self, kind: str) -> list[tuple[str, NDArray[Any]]]:
        """Heading and colors of each picture in the row."""
        # The logarithm tells near things apart as well as far ones, in rooms and in streets.
        low, high = np.percentile(_nearness(self.depth[0])[self.depth[0] > 0], [1, 99])
        shown: list[tuple[str, NDArray[Any]]] = [("image", self.image)]
        for name, arrays in (("classes", self.label), ("depth", self.depth), ("normals", self.normal)):
            for number, array in enumerate(arrays):
                if name == "classes":
                    colors = of_labels(array, kind)
                elif name == "depth":
                    there = self.depth[0] > 0
                    colors = of_depth(_nearness(array), low, high, there)
                else:
                    colors = of_normals(array)
                shown.append((f"{name}, predicted" if number else name, colors))
        return shown


def _nearness(depth: NDArray[Any]) -> NDArray[Any]:
    # A prediction may be 0 or below, which is as near as anything.
    return np.asarray(-np.log(np.maximum(depth, 0.05)))


def picture(blocks: Sequence[tuple[str, Sequence[SceneRow]]], *, width: float) -> Any:
    """A figure with a block of rows for each kind of scene, and its classes below it.

    Args:
        blocks: kind and rows.
        width: of the figure, inches.
    """
    from matplotlib.figure import Figure

    rows = [(kind, number, row.panels(kind)) for kind, own in blocks for number, row in enumerate(own)]
    columns = len(rows[0][2])
    edge = width / columns
    heights = [edge * panels[0][1].shape[0] / panels[0][1].shape[1] for _, _, panels in rows]
    total = sum(heights) + 0.25 + _LEGEND * len(blocks)
    figure = Figure(figsize=(width, total), facecolor="white")
    top = total - 0.25
    for position, (kind, number, panels) in enumerate(rows):
        height = heights[position]
        for column, (heading, colors) in enumerate(panels):
            gap = 0.03
            axes = figure.add_axes(
                (
                    (column * edge + gap / 2) / width,
                    (top - height + gap / 2) / total,
                    (edge - gap) / width,
                    (height - gap) / total,
                )
            )
            axes.imshow(np.clip(colors, 0, 1), aspect="auto", interpolation="nearest")
            axes.set_axis_off()
            if position == 0:
                axes.set_title(heading, fontsize=10, pad=3)
        top -= height
        if number == len(dict(blocks)[kind]) - 1:
            _legend(figure, kind, top / total)
            top -= _LEGEND
    return figure


def _legend(figure: Any, kind: str, top: float) -> None:
    from matplotlib.patches import Patch

    names = (*_CLASSES[kind], "void")
    patches = [
        Patch(facecolor=color, edgecolor="#999999", linewidth=0.5, label=name)
        for name, color in zip(names, (*CLASS_COLORS[kind], VOID_COLOR), strict=True)
    ]
    figure.legend(
        handles=patches,
        loc="upper center",
        bbox_to_anchor=(0.5, top),
        ncols=7 if len(names) > 8 else 8,
        frameon=False,
        fontsize=8.5,
        handlelength=1.1,
        handleheight=1.0,
        columnspacing=1.4,
        borderaxespad=0.25,
    )


_SIZES = {"rooms": (288, 384), "streets": (192, 384)}


def make(settings: ScenesFigureSettings, folder: Path, told: Told = silent, *, problem: Problem | None = None) -> str:
    """Writes ``scenes.png``; with ``settings.predict`` also ``predictions.png`` and ``predictions.json``.

    Args:
        settings: which scenes.
        folder: where to.
        told: takes a line on each thing done.
        problem: rooms to train on for predictions; those of the study by default.

    Returns:
        A line for each file.

    Raises:
        InputError: the folder cannot be made.
    """
    made_folder(folder)
    blocks = []
    for kind, count in (("rooms", settings.rooms), ("streets", settings.streets)):
        blocks.append((kind, [_row(kind, settings.seed, number) for number in range(count)]))
        told(f"{count} {kind} rendered")
    picture(blocks, width=10).savefig(folder / "scenes.png", dpi=90)
    lines = [f"{folder / 'scenes.png'}: image, classes, depth (bright is near) and normals"]
    if settings.predict:
        from equipoise_papers.figures.scenes.predict import predictions

        rows, metrics = predictions(settings, settings.rooms, told, problem)
        picture([("rooms", rows)], width=13).savefig(folder / "predictions.png", dpi=110)
        about = {"method": settings.method, "epochs": settings.epochs, "network": settings.network, "width": settings.width}
        write_json(folder / "predictions.json", about | {"seed": settings.seed, "test": metrics})
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        lines.append(f"{folder / 'predictions.png'}: scenes not trained on; over all of them {numbers}")
    return "\n".join(lines)


def _row(kind: str, seed: int, number: int) -> SceneRow:
    scene = make_scene(kind, _SIZES[kind], seed=seed, number=number)
    return SceneRow(scene.image, [scene.label], [scene.depth], [scene.normal])
