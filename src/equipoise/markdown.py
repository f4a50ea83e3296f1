"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from equipoise.errors import InputError

__all__ = ["table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int | Collection[int] = 1, *, aligned: bool = True) -> str:
    """Lays out a Markdown table with aligned columns. What would end a cell is escaped.

    Args:
        head: titles of the columns.
        rows: cells, as many per row as there are titles.
        left: how many of the first columns are aligned to the left, or which; the others are to the right.

        aligned: whether columns are filled up to one width, which suits a terminal, but no long sentences.

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
    lines = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) if aligned else 0 for column in zip(*lines, strict=True)]
    lefts = range(left) if isinstance(left, int) else left
    dashes = [max(2, width - 1) * "-" for width in widths]
    rule = [f":{dash}" if place in lefts else f"{dash}:" for place, dash in enumerate(dashes)]

    def laid(cells: Sequence[str]) -> str:
        both = enumerate(zip(cells, widths, strict=True))
        return (
            "| "
            + " | ".join(cell.ljust(width) if place in lefts else cell.rjust(width) for place, (cell, width) in both)
            + " |"
        )

    return "\n".join([laid(lines[0]), laid(rule), *map(laid, lines[1:])])
