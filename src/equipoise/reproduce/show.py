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

from equipoise.reproduce.compare import cells, headings, write_comparison
from equipoise.reproduce.plan import listed
from equipoise.reproduce.recipe import Recipe
from equipoise.reproduce.registry import recipes

__all__ = ["show_comparison", "show_list", "show_smoke"]


def show_list(console: Console) -> None:
    """All recipes, a line each."""
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
    """Two steps of every row; returns 1 if one of them failed."""
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
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place, heading in enumerate(("row", "", *headings(compared))):
            table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place < 2)
        for row in compared.rows:
            published, ours, differences = cells(compared, row)
            table.add_row(row.name, "published", *published, style="dim")
            table.add_row("", "ours", *ours)
            table.add_row("", "difference", *differences, end_section=True)
        console.print(table)
        if compared.missing:
            console.print(Text(f"Not run: {', '.join(compared.missing)}.", style="dim"), soft_wrap=True)
    console.print(f"Comparison: {folder / 'comparison.md'}", markup=False, highlight=False, soft_wrap=True)
