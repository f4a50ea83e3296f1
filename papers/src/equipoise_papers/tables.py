"""Results as plain text: a Markdown table, and numbers over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from equipoise.errors import InputError

__all__ = ["mean_and_spread", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, *, aligned: bool = True) -> str:
    """Lays out a Markdown table.

    Args:
        head: titles of the columns.
        rows: cells, as many per row as there are titles.
        left: how many of the first columns are set to the left; the others are set to the right.
        aligned: whether columns have the same width in every line, as is good to read on a terminal.

    Raises:
        InputError: a row with another number of cells.

    Example:
        >>> print(table(["method", "loss"], [["ls", "1.5"], ["mgda", "12.0"]]))
        | method | loss |
        | :----- | ---: |
        | ls     |  1.5 |
        | mgda   | 12.0 |
    """
    for row in rows:
        if len(row) != len(head):
            raise InputError(f"a row of the table has {len(row)} cells; its head has {len(head)}: {', '.join(head)}")
    widths = [max(3, *(len(line[column]) for line in [head, *rows])) if aligned else 0 for column in range(len(head))]

    def laid(cells: Sequence[str]) -> str:
        both = enumerate(zip(cells, widths, strict=True))
        return (
            "| " + " | ".join(cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in both) + " |"
        )

    rule = [
        ":".ljust(max(width, 3), "-") if place < left else ":".rjust(max(width, 3), "-") for place, width in enumerate(widths)
    ]
    return "\n".join([laid(head), laid(rule), *map(laid, rows)])


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and with several values their standard deviation (n − 1).

    Example:
        >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([0.25], digits=2)
        ('2.0 ± 1.0', '0.25')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
