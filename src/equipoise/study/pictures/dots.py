"""Names down the side, and for each a mean, its standard deviation, and every seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from equipoise.metrics import spread
from equipoise.study.pictures.style import ACCENT, INK

__all__ = ["above_texts", "dots"]


def dots(
    axes: Axes, values: Sequence[Sequence[float]], *, colour: str | Sequence[str] = ACCENT, texts: Sequence[str] = ()
) -> None:
    """Draws one line a name.

    Args:
        axes: with the names on its y axis.
        values: for each name, one value a seed.
        colour: of the marks; one for all, or one for each name.
        texts: written at the right edge, one for each name.
    """
    colours = [colour] * len(values) if isinstance(colour, str) else colour
    for position, (own, shade) in enumerate(zip(values, colours, strict=True)):
        finite = [value for value in own if math.isfinite(value)]
        if not finite:
            axes.annotate("no finite value", (0.02, position), xycoords=("axes fraction", "data"), va="center", fontsize=9)
            continue
        mean = spread(finite)
        deviation = None if math.isnan(mean.std) else mean.std
        if len(finite) > 1:
            # The seeds lie beside the line of the error bar, where they do not hide it.
            axes.scatter(
                finite, [position + 0.22] * len(finite), s=13, facecolors="none", edgecolors=shade, linewidths=0.8, zorder=3
            )
        axes.errorbar(
            mean.mean, position, xerr=deviation, fmt="o", markersize=6, color=shade, capsize=3, elinewidth=1.6, zorder=4
        )
    for position, text in enumerate(texts):
        axes.annotate(
            text,
            (1.015, position),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=INK,
            annotation_clip=False,
        )


def above_texts(axes: Axes, text: str) -> None:
    """Says above the texts at the right edge what they are."""
    axes.annotate(
        text,
        (1, 1),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=INK,
    )
