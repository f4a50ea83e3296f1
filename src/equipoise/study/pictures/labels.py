"""Names at the ends of lines, moved apart where they would overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

__all__ = ["label_ends", "spread_apart"]


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, panel: float, size: float = 9) -> None:
    """Writes each line's name behind its last point.

    Args:
        axes: finished otherwise: limits and scale are not to change any more.
        ends: last value, name and colour of each line.
        panel: height of the axes in inches.
        size: of the font, in points.
    """
    finite = [end for end in ends if math.isfinite(end[0])]
    if not finite:
        return
    axes.margins(y=0.08)
    axes.autoscale_view()
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    scale = axes.transScale + axes.transLimits
    heights = [
        float(scale.transform((axes.get_xlim()[1] if axes.get_xscale() == "linear" else 1, value))[1]) for value, _, _ in finite
    ]
    # A line of text needs 1.25 of its size; the layout is settled only when the figure is drawn, so its height is guessed.
    needed = 1.25 * size / (72 * panel)
    for (_, name, colour), height in zip(finite, spread_apart(heights, needed), strict=True):
        axes.annotate(
            name,
            (1.015, height),
            xycoords="axes fraction",
            va="center",
            ha="left",
            color=colour,
            fontsize=size,
            annotation_clip=False,
        )


def spread_apart(heights: Sequence[float], needed: float) -> list[float]:
    """Moves positions as little as possible until they keep the distance.

    Args:
        heights: where they would like to be.
        needed: the least distance between two of them.

    Returns:
        The new positions, in the order given.

    Example:
        >>> spread_apart([0.5, 0.5, 0.9], 0.1)
        [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    # Blocks of labels that touch each other; a block sits where its members would like to be on average.
    blocks: list[list[int]] = []

    def bottom(block: list[int]) -> float:
        return sum(heights[index] - place * needed for place, index in enumerate(block)) / len(block)

    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and bottom(blocks[-1]) < bottom(blocks[-2]) + len(blocks[-2]) * needed - 1e-12:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = list(heights)
    for block in blocks:
        for place, index in enumerate(block):
            placed[index] = round(bottom(block) + place * needed, 12)
    return placed
