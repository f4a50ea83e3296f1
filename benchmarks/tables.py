"""Markdown tables, columns aligned so that they also read well on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["duration", "small", "table", "times"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, the others right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = (
        "|" + "|".join(("-" * (width + 1) + ":") if place else ("-" * (width + 2)) for place, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(head), rule, *map(line, rows)])


def duration(seconds: float) -> str:
    """Seconds, with the unit that suits them."""
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} µs"


def times(factor: float) -> str:
    """How many times as long something takes."""
    if factor >= 100:
        return f"{factor:,.0f}×"
    return f"{factor:.1f}×" if factor >= 10 else f"{factor:.2f}×"


def small(number: float) -> str:
    """A residual."""
    return "∞" if number == float("inf") else "—" if number != number else f"{number:.0e}"
