"""How all pictures look: colours, sizes, panels, dots with error bars, and labels that keep their distance."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from equipoise.metrics import spread
from equipoise.study.names import wrapped
from equipoise.study.results import Results

__all__ = [
    "ACCENT",
    "BASELINE",
    "COLORS",
    "GREY",
    "INK",
    "STYLES",
    "above_texts",
    "by_method",
    "dots",
    "dress",
    "epochs_axis",
    "fewest_empty",
    "grid",
    "is_leftmost",
    "is_lowest",
    "label_ends",
    "legend",
    "log_scale",
    "method_looks",
    "names_axis",
    "on_page",
    "percent",
    "single",
    "spread_apart",
]

# Okabe and Ito's palette, the yellow left out because thin lines of it vanish on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")  # joins in when the colours are used up
ACCENT = COLORS[0]
BASELINE = COLORS[1]
INK = "#222222"
GREY = "#B8B8B8"
_FAINT = "#E6E6E6"
_SIZE = 10
_NARROWEST = 5.5  # inches; a narrower figure has no room for its legend
_PAGE, _TALL = 6.75, 8.2  # inches of text on a page of two columns, a caption left out

_page: ContextVar[float | None] = ContextVar("page", default=None)

# Those that most studies hold come first, so that they differ from each other; any other name finds its look by its letters.
_KNOWN = (
    *("ls", "fairgrad", "famo", "upgrad", "cagrad", "imtl-g", "mgda", "nash-mtl", "ldc-mtl", "pcgrad", "si", "uw"),
    *("phn", "cosmos", "film", "palora", "lorpman", "pamal"),
)


@contextmanager
def on_page(width: float = _PAGE) -> Iterator[None]:
    """Figures that are made within are no wider than a page's text, in inches: their panels move below each other."""
    token = _page.set(width)
    try:
        yield
    finally:
        _page.reset(token)


def fewest_empty(panels: int) -> int:
    """As many columns, of four or three, as leave the fewest places empty; of equals, the wider."""
    return min((4, 3), key=lambda number: -panels % number)


def method_looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and line of each method: the same in every picture, and different within one.

    A method is told by its name before the colon, whatever its options; of several with one look the first by letters has it,
    and the others take the next that is free.

    Example:
        >>> looks = method_looks(["fairgrad", "ls"])
        >>> looks["ls"] == method_looks(["ls", "cagrad:c=0.2"])["ls"], looks["ls"] != looks["fairgrad"]
        (True, True)
    """
    places: dict[str, int] = {}
    colors = COLORS[:-1]  # black is what methods are compared with
    count = len(colors) * len(STYLES)

    def known(name: str) -> tuple[bool, str]:
        return name.split(":")[0] not in _KNOWN, name

    given = list(dict.fromkeys(names))
    for name in sorted(given, key=known):
        base = name.split(":")[0]
        place = _KNOWN.index(base) if base in _KNOWN else zlib.crc32(base.encode()) % count
        while len(places) < count and place in places.values():
            place = (place + 1) % count
        places[name] = place
    return {name: (colors[places[name] % len(colors)], STYLES[places[name] // len(colors)]) for name in given}


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one set of axes; sizes in inches."""
    figure = Figure(figsize=(min(width, _page.get() or width), height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def grid(panels: int, *, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of small multiples; width and height are inches per panel, ``shared`` is for ``Figure.subplots``."""
    page = _page.get()
    if page is not None:
        # A panel may lose two fifths of a column, but not more.
        columns = min(columns, math.ceil(page / width - 0.4))
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    width = max(width, _NARROWEST / columns)
    if page is not None:
        width, height = min(width, page / columns), min(height, _TALL / rows)
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


def is_leftmost(axes: Axes) -> bool:
    """Whether a panel is in the first column."""
    own = axes.get_subplotspec()
    return own is None or own.is_first_col()


def is_lowest(axes: Axes, panels: Sequence[Axes]) -> bool:
    """Whether there is no panel below."""
    own = axes.get_subplotspec()
    return own is None or list(panels).index(axes) + own.get_gridspec().ncols >= len(panels)


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


def percent(axes: Axes, largest: float = 1.0) -> None:
    """A y axis of shares, shown as percentages, from 0 to the first of a few round numbers that is at least ``largest``."""
    top = next((top for top in (0.04, 0.08, 0.12, 0.2, 0.4, 0.6, 0.8) if top >= largest), 1.0)
    axes.set_ylim(-0.02 * top, 1.02 * top)
    axes.set_yticks([top * quarter / 4 for quarter in range(5)])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, panel: float, size: float = 9) -> None:
    """Writes each line's name behind its last point."""
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
    for (_, name, color), height in zip(finite, spread_apart(heights, needed), strict=True):
        axes.annotate(
            name,
            (1.015, height),
            xycoords="axes fraction",
            va="center",
            ha="left",
            color=color,
            fontsize=size,
            annotation_clip=False,
        )


def spread_apart(heights: Sequence[float], needed: float) -> list[float]:
    """Moves positions as little as possible until they keep the distance.

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


def by_method(results: Results, quantity: str, methods: Sequence[str] | None = None) -> tuple[Figure, dict[str, Axes]]:
    """Panels over epochs, the methods in the order of their Δm."""
    names = tuple(results.ranking() if methods is None else methods)
    figure, panels = grid(len(names), columns=fewest_empty(len(names)), width=2.6, height=2.0, sharex=True, sharey=True)
    for name, axes in zip(names, panels, strict=True):
        epochs_axis(axes, results.epochs, labelled=is_lowest(axes, panels))
        axes.set_title(wrapped(results.short(name), 22), loc="left", fontsize=10, fontweight="bold")
        if is_leftmost(axes):
            axes.set_ylabel(quantity)
    return figure, dict(zip(names, panels, strict=True))


def legend(figure: Figure, entries: Sequence[tuple[str, str, str]]) -> None:
    """One legend above all panels."""
    lines = [Line2D([], [], color=color, linestyle=style, linewidth=1.8) for _, color, style in entries]  # type: ignore[arg-type]
    # As many side by side as fit: a character takes about a fourteenth of an inch, the line before it and the room behind nine.
    room = figure.get_figwidth() * 14
    columns = len(entries)
    while columns > 1 and sum(sorted((len(text) + 9 for text, _, _ in entries), reverse=True)[:columns]) > room:
        columns -= 1
    figure.legend(lines, [text for text, _, _ in entries], loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def dots(
    axes: Axes, values: Sequence[Sequence[float]], *, color: str | Sequence[str] = ACCENT, texts: Sequence[str] = ()
) -> None:
    """Draws one line per name."""
    colors = [color] * len(values) if isinstance(color, str) else color
    for position, (own, shade) in enumerate(zip(values, colors, strict=True)):
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
        text, (1, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9, color=INK
    )
