"""Rows of pictures: image, classes, depth, normals; of each what is true, and what was predicted if that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise_papers.figures.scenes.colours import CLASS_COLOURS, VOID_COLOUR, of_depth, of_labels, of_normals
from equipoise_papers.scenes import ROOM_CLASSES, STREET_CLASSES

__all__ = ["Row", "picture"]

_CLASSES = {"rooms": ROOM_CLASSES, "streets": STREET_CLASSES}
_LEGEND = 0.52  # inches


@dataclass(frozen=True)
class Row:
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
        """Heading and colours of each picture in the row."""
        # The logarithm tells near things apart as well as far ones, in rooms and in streets.
        low, high = np.percentile(_nearness(self.depth[0])[self.depth[0] > 0], [1, 99])
        shown: list[tuple[str, NDArray[Any]]] = [("image", self.image)]
        for name, arrays in (("classes", self.label), ("depth", self.depth), ("normals", self.normal)):
            for number, array in enumerate(arrays):
                if name == "classes":
                    colours = of_labels(array, kind)
                elif name == "depth":
                    there = self.depth[0] > 0
                    colours = of_depth(_nearness(array), low, high, there)
                else:
                    colours = of_normals(array)
                shown.append((f"{name}, predicted" if number else name, colours))
        return shown


def _nearness(depth: NDArray[Any]) -> NDArray[Any]:
    # A prediction may be 0 or below, which is as near as anything.
    return np.asarray(-np.log(np.maximum(depth, 0.05)))


def picture(blocks: Sequence[tuple[str, Sequence[Row]]], *, width: float) -> Any:
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
        for column, (heading, colours) in enumerate(panels):
            gap = 0.03
            axes = figure.add_axes(
                (
                    (column * edge + gap / 2) / width,
                    (top - height + gap / 2) / total,
                    (edge - gap) / width,
                    (height - gap) / total,
                )
            )
            axes.imshow(np.clip(colours, 0, 1), aspect="auto", interpolation="nearest")
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
        Patch(facecolor=colour, edgecolor="#999999", linewidth=0.5, label=name)
        for name, colour in zip(names, (*CLASS_COLOURS[kind], VOID_COLOUR), strict=True)
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
