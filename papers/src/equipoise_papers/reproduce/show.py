"""Lists, smoke tests and comparisons on the terminal."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equipoise_papers.reproduce.compare import ComparedTable, cells, headings, write_comparison
from equipoise_papers.reproduce.plan import listed
from equipoise_papers.reproduce.recipe import Recipe
from equipoise_papers.reproduce.registry import recipes

__all__ = ["show_comparison", "show_list", "show_smoke"]


def show_list(console: Console) -> None:
    """All recipes, one line each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("recipe", "what", "about, on one GPU", "missing"):
        table.add_column(heading, no_wrap=heading == "recipe")
    for recipe in recipes():
        table.add_row(*listed(recipe))
    console.print(table)
    console.print(
        "equipoise reproduce NAME --dry-run says what a recipe does; --smoke tries it on generated data; --data DIR runs it.",
        highlight=False,
        soft_wrap=True,
    )


def show_smoke(recipe: Recipe, rows: Sequence[str] | None, console: Console) -> int:
    """A few steps of every row; returns 1 if one of them failed."""
    failed = 0
    for part in recipe.parts:
        with tempfile.TemporaryDirectory() as temporary:
            sample = part.write_sample(Path(temporary) / "data")
            for row in part.made(rows):
                began = time.perf_counter()
                try:
                    values = part.smoke(sample, [row.name])[row.name]
                    said = f"ok, {len(values)} values, {time.perf_counter() - began:.1f} s"
                except Exception:
                    failed = 1
                    said = f"failed\n{traceback.format_exc()}"
                console.print(f"{part.name}: {row.name}: {said}", markup=False, highlight=False, soft_wrap=True)
    for obstacle in recipe.obstacles():
        console.print(f"missing: {obstacle}", markup=False, highlight=False, soft_wrap=True)
    return failed


def show_comparison(recipe: Recipe, folder: Path, console: Console) -> None:
    """Published rows beside ours, and where all of it is written."""
    for compared in write_comparison(recipe, folder):
        console.print()
        console.print(Text(f"{compared.table.source}: {compared.table.title}", style="bold"))
        if not compared.rows:
            console.print("Nothing of it has been run.")
            continue
        console.print(_table(compared, console.width))
        if compared.missing:
            console.print(Text(f"Not run: {', '.join(compared.missing)}.", style="dim"), soft_wrap=True)
        for departure in compared.departures:
            console.print(Text(f"Different from the paper: {departure}", style="yellow"), soft_wrap=True)
    console.print(f"Comparison: {folder / 'comparison.md'}", markup=False, highlight=False, soft_wrap=True)


def _table(compared: ComparedTable, width: int) -> Table:
    """All columns where there is room for them, else the summaries, which come last."""
    lines = [(row.name, cells(compared, row)) for row in compared.rows]
    over = headings(compared)
    metrics = len(compared.table.metrics)
    first = 0 if metrics == 0 or metrics >= len(over) or _needed(over, lines, 0) <= width else metrics
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=None if not first else "The metrics are in the file.")
    for place, heading in enumerate(("row", "", *over[first:])):
        # Headings break at their spaces; names and numbers do not break.
        least = max(map(len, (*heading.split(), "")))
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place < 2, min_width=least)
    for name, (published, ours, differences) in lines:
        table.add_row(name, "published", *published[first:], style="dim")
        table.add_row("", "ours", *ours[first:])
        table.add_row("", "difference", *differences[first:], end_section=True)
    return table


def _needed(over: Sequence[str], lines: Sequence[tuple[str, tuple[list[str], ...]]], first: int) -> int:
    """How many characters a terminal must have for the columns from ``first`` on."""
    columns = [max(map(len, heading.split())) for heading in over]
    for _, shown in lines:
        columns = [max(width, *(len(texts[place]) for texts in shown)) for place, width in enumerate(columns)]
    return max((len(name) for name, _ in lines), default=0) + 13 + sum(width + 3 for width in columns[first:])
