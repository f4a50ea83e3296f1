"""Small multiples with one panel a method, and one legend for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equipoise.study.names import wrapped
from equipoise.study.pictures.style import epochs_axis, grid
from equipoise.study.results import Results

__all__ = ["by_method", "legend"]


def by_method(results: Results, quantity: str, methods: Sequence[str] | None = None) -> tuple[Figure, dict[str, Axes]]:
    """Panels over epochs, the methods in the order of their Δm.

    Args:
        results: what is shown.
        quantity: label of the y axes.
        methods: which; all if left out.
    """
    names = tuple(results.ranking() if methods is None else methods)
    # As many columns as leave the fewest places empty; of equals, the wider.
    columns = min((4, 3), key=lambda number: -len(names) % number)
    figure, panels = grid(len(names), columns=columns, width=2.6, height=2.0, sharex=True, sharey=True)
    columns = min(columns, len(names))
    for position, (name, axes) in enumerate(zip(names, panels, strict=True)):
        epochs_axis(axes, results.epochs, labelled=position + columns >= len(names))
        axes.set_title(wrapped(results.short(name), 22), loc="left", fontsize=10, fontweight="bold")
        if position % columns == 0:
            axes.set_ylabel(quantity)
    return figure, dict(zip(names, panels, strict=True))


def legend(figure: Figure, entries: Sequence[tuple[str, str, str]]) -> None:
    """One legend above all panels.

    Args:
        figure: where.
        entries: text, colour and line style of each.
    """
    lines = [Line2D([], [], color=colour, linestyle=style, linewidth=1.8) for _, colour, style in entries]  # type: ignore[arg-type]
    # As many side by side as fit: a character takes about a fourteenth of an inch, the line before it six of them.
    room = figure.get_figwidth() * 14
    columns = len(entries)
    while columns > 1 and sum(sorted((len(text) + 7 for text, _, _ in entries), reverse=True)[:columns]) > room:
        columns -= 1
    figure.legend(
        lines,
        [text for text, _, _ in entries],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )
