"""The table on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from equipoise_papers.figures.cost_toy.make import HEADER, Made, cells, totals

__all__ = ["show"]


def show(made: Made, console: Console) -> None:
    """Prints the table, its caption and where the files are."""
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(HEADER):
        table.add_column(title, justify="left" if number < 2 else "right", no_wrap=number < 2)
    previous = None
    for outcome in made.outcomes:
        if previous is not None and outcome.balancer != previous:
            table.add_section()
        table.add_row(*cells(outcome))
        previous = outcome.balancer
    table.add_section()
    for row in totals(made.outcomes):
        table.add_row(*row, style="bold")
    console.print(table)
    console.print()
    console.print(made.caption, markup=False, highlight=False)
    for file in made.files:
        console.print(str(file), markup=False, highlight=False, soft_wrap=True)
