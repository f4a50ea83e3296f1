"""The outcome of a sweep on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from equipoise.sweep.outcome import Outcome
from equipoise.sweep.report.content import Table, content

__all__ = ["print_outcome"]

_WIDE = 160  # characters that the whole tables need


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Prints what the sweep found; the notes on how to read it are in the report."""
    said = content(outcome)
    console.print()
    console.print(Text(said.title, style="bold"))
    for sentence in said.lead:
        console.print(Text(sentence))
    for table in said.tables:
        console.print()
        console.print(_table(table, console.width))
    for key, path in said.failures.items():
        console.print(Text(f"failed: {key}, see {path}", style="red"), soft_wrap=True)


def _table(table: Table, width: int) -> RichTable:
    shown_columns = table.narrow if width < _WIDE else tuple(range(len(table.columns)))
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=table.title, title_justify="left")
    for place in shown_columns:
        shown.add_column(table.columns[place], overflow="fold", justify="left" if place == 0 else "right")
    for row in table.rows:
        shown.add_row(*(Text(row[place]) for place in shown_columns))
    return shown
