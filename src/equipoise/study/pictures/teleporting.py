"""What the pictures of methods that teleport share: which methods are shown, one row each, and how attempts look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equipoise.study.names import shortened
from equipoise.study.pictures.style import COLOURS, GREY, grid
from equipoise.study.results import Results
from equipoise.teleport import TeleportReport

__all__ = [
    "ACCEPTED",
    "REFUSED",
    "WITH",
    "WITHOUT",
    "attempts",
    "legend_of",
    "note_what_is_left_out",
    "rows",
    "shown",
    "task_colours",
]

ACCEPTED = COLOURS[2]
REFUSED = GREY
WITH = COLOURS[1]  # a method with its teleport …
WITHOUT = COLOURS[0]  # … and without
_ROWS = 6  # more methods than that would not be looked at
_WIDTH = 4.0  # inches a panel
_TITLE = 52  # characters above a panel


def shown(results: Results, *, attempted: bool = True) -> list[str]:
    """The methods that get a row, best first.

    Args:
        results: of a study.
        attempted: only methods with at least one attempt.
    """
    names = [name for name in results.teleporting() if not attempted or any(results.teleports(name).values())]
    return names[:_ROWS]


def attempts(results: Results, method: str) -> list[TeleportReport]:
    """All attempts of a method over all seeds."""
    return [report for reports in results.teleports(method).values() for report in reports]


def rows(results: Results, names: Sequence[str], *, height: float = 2.6) -> tuple[Figure, Iterator[tuple[str, Axes, Axes]]]:
    """A figure with one row a method: its name, the left panel and the right panel."""
    figure, panels = grid(2 * len(names), columns=2, width=_WIDTH, height=height)
    for name, axes in zip(names, panels[::2], strict=True):
        axes.set_title(shortened(results.short(name), _TITLE), loc="left", fontsize=10, fontweight="bold")
    note_what_is_left_out(figure, results, names)
    return figure, zip(names, panels[::2], panels[1::2], strict=True)


def note_what_is_left_out(figure: Figure, results: Results, names: Sequence[str]) -> None:
    """Says below the panels that not all methods are shown, where that is so."""
    left_out = len(results.teleporting()) - len(names)
    if left_out > 0 and len(names) == _ROWS:
        note = f"the {_ROWS} teleporting methods with the lowest Δm; {left_out} more are in the table only"
        figure.supxlabel(note, fontsize=9, color="#666666")


def task_colours(results: Results) -> dict[str, str]:
    """A colour a task; one for all where there are too many tasks to tell them apart."""
    few = len(results.tasks) <= len(COLOURS)
    return {task: COLOURS[position] if few else COLOURS[0] for position, task in enumerate(results.tasks)}


def legend_of(figure: Figure, entries: Sequence[tuple[str, dict[str, object]]]) -> None:
    """One legend above all panels.

    Args:
        figure: where.
        entries: text, and the properties of the line or mark that stands for it.
    """
    marks = [Line2D([], [], **{"linestyle": "none", **look}) for _, look in entries]  # type: ignore[arg-type]
    # As many side by side as fit: a character takes about a fourteenth of an inch, a mark and its margins six of them.
    room = figure.get_figwidth() * 14
    columns = len(entries)
    while columns > 1 and sum(sorted((len(text) + 6 for text, _ in entries), reverse=True)[:columns]) > room:
        columns -= 1
    figure.legend(
        marks,
        [text for text, _ in entries],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=1.8,
    )
