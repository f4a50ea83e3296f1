"""Tables in Markdown, and names that are only names there."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from equipoise.errors import InputError
from equipoise.terminal import printable

__all__ = ["code", "escaped", "table"]

_ACTIVE = re.compile(
    r"""
    [\\*`~$]                 # escapes, emphasis, code, struck-out text, formulas
    | \](?=[(\[:])            # links
    | <(?=[A-Za-z/!?])        # HTML
    | &(?=[#\w])              # entities
    | (?<!\w)_ | _(?!\w)      # emphasis, but not within a word
    | ^> | ^[#+=-](?=[\s#=-]|$) | (?<=^\d)[.)](?=\s|$)  # quotations, headings, lists
    """,
    re.VERBOSE,
)


def escaped(text: str) -> str:
    r"""A text that Markdown shows as it is.

    Example:
        >>> print(escaped("<b>*x* [a](b) my_task cagrad:c=0.2"))
        \<b>\*x\* [a\](b) my_task cagrad:c=0.2
    """
    return _ACTIVE.sub(r"\\\g<0>", printable(text))


def code(text: str) -> str:
    """A text in the type of code, whatever is in it.

    Example:
        >>> print(code("failed/a.txt"), code("a`b"))
        `failed/a.txt` ``a`b``
    """
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    room = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{room}{shown}{room}{fence}"


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
