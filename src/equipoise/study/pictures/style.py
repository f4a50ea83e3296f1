"""What all pictures share: colours that colour-blind readers can tell apart, sizes, axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from equipoise.study.names import wrapped

__all__ = [
    "ACCENT",
    "BASELINE",
    "COLOURS",
    "GREY",
    "INK",
    "STYLES",
    "dress",
    "epochs_axis",
    "grid",
    "log_scale",
    "names_axis",
    "percent",
    "single",
]

# Okabe and Ito's palette, the yellow left out because thin lines of it vanish on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")  # joins in when the colours are used up
ACCENT = COLOURS[0]
BASELINE = COLOURS[1]
INK = "#222222"
GREY = "#B8B8B8"
_FAINT = "#E6E6E6"
_SIZE = 10
_NARROWEST = 5.5  # inches; a narrower figure has no room for its legend


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one set of axes; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def grid(panels: int, *, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of small multiples, as many as asked for.

    Args:
        panels: how many.
        columns: at most so many side by side.
        width: inches a panel.
        height: inches a panel.
        **shared: passed to ``Figure.subplots``, such as ``sharey=True``.
    """
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    width = max(width, _NARROWEST / columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained", facecolor="white")
    # Somewhat more room between panels than inside a label, so that it is clear what belongs together.
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr,call-arg]
    every = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for axes in every[panels:]:
        axes.remove()
    for position, axes in enumerate(every[:panels]):
        dress(axes)
        # A panel with nothing below it carries the labels of its column.
        axes.tick_params(labelbottom=not shared.get("sharex") or position + columns >= panels)
    return figure, every[:panels]


def dress(axes: Axes) -> None:
    """Takes away what is not needed to read the numbers."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=_SIZE - 1, color=GREY, which="both")
    axes.grid(True, color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(_SIZE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(_SIZE)
        axis.label.set_color(INK)


def names_axis(axes: Axes, names: Sequence[str], *, labelled: bool = True) -> None:
    """Puts names on the y axis, the first on top."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [wrapped(name, 26) if labelled else "" for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    for position in range(len(names)):
        axes.axhline(position, color=_FAINT, linewidth=0.7, zorder=0)


def log_scale(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers; ticks at 1, 2 and 5 where it spans little, at the powers of ten elsewhere."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    subs = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0] if decades < 0.6 else [1.0, 2.0, 5.0] if decades < 3 else [1.0]
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def epochs_axis(axes: Axes, epochs: int, *, labelled: bool = True) -> None:
    """An x axis that counts epochs from 1."""
    axes.set_xlim(0.5 if epochs == 1 else 1, max(epochs, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    if labelled:
        axes.set_xlabel("epoch")


def percent(axes: Axes) -> None:
    """A y axis of shares from 0 to 1, shown as percentages."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
