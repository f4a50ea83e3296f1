"""The published rows beside ours, with the differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.markdown import table
from equipoise.metrics import mean_rank
from equipoise.metrics.metric import Spread, spread
from equipoise.store import write_json, write_whole
from equipoise_papers.published import PublishedTable, find_table
from equipoise_papers.reproduce.recipe import FoundRows, Recipe

__all__ = ["ComparedRow", "ComparedTable", "compare", "headings", "write_comparison"]

_WORDS = {"delta_m": "Δm (%) ↓", "delta_p": "Δ_p (%) ↑", "average": "average (%) ↑", "MR": "MR ↓"}


@dataclass(frozen=True)
class ComparedRow:
    """A row of a published table and ours.

    Attributes:
        name: of the row.
        published: column → number as printed.
        ours: column → mean and deviation over seeds.
        differences: column → ours minus the published one.
    """

    name: str
    published: Mapping[str, str]
    ours: Mapping[str, Spread]
    differences: Mapping[str, float]


@dataclass(frozen=True)
class ComparedTable:
    """A published table beside ours.

    Attributes:
        table: the published one.
        columns: what is compared, in order.
        rows: those of which something is there.
        missing: names of rows that were not made.
        departures: how our runs differ from the paper's, one sentence each.
    """

    table: PublishedTable
    columns: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    missing: tuple[str, ...]
    departures: tuple[str, ...] = ()


def compare(recipe: Recipe, folder: Path) -> tuple[ComparedTable, ...]:
    """Every table of a recipe, beside what lies in the folder of the recipe."""
    found: dict[str, dict[str, Mapping[str, Sequence[float]]]] = {}
    departures: dict[str, list[str]] = {}
    versions: dict[str, dict[str, str]] = {}
    for part in recipe.parts:
        versions.setdefault(part.table, {}).update({row.name: row.of for row in part.rows if row.of})
        found.setdefault(part.table, {}).update(part.collect(folder / part.name))
        departures.setdefault(part.table, []).extend(part.departures(folder / part.name))
    return tuple(_compared(find_table(key), own, departures[key], versions[key]) for key, own in found.items())


def _compared(table: PublishedTable, found: FoundRows, departures: Sequence[str], versions: Mapping[str, str]) -> ComparedTable:
    ours: dict[str, dict[str, Spread]] = {
        row: {column: spread(values) for column, values in own.items()} for row, own in found.items()
    }
    _add_ranks(table, ours)
    printed = list(dict.fromkeys(column for row in table.printed.values() for column in row if not column.endswith(" std")))
    further = list(dict.fromkeys(column for own in ours.values() for column in own if column.startswith("Δm against")))
    rows = []
    # Each version of a published row stands below it, beside the same printed numbers.
    names = [(own, name) for name in table.printed for own in (name, *(key for key, of in versions.items() if of == name))]
    for name, of in names:
        if name not in ours:
            continue
        published = {column: cell for column, cell in table.printed[of].items() if not column.endswith(" std")}
        differences = {
            column: ours[name][column].mean - float(cell) for column, cell in published.items() if column in ours[name]
        }
        rows.append(ComparedRow(name, published, ours[name], differences))
    missing = tuple(name for name in table.printed if name not in ours)
    return ComparedTable(table, (*printed, *further), tuple(rows), missing, tuple(departures))


def _add_ranks(table: PublishedTable, ours: dict[str, dict[str, Spread]]) -> None:
    """MR of ours, where every method of the table is there; otherwise ranks would be among others."""
    if "MR" not in table.summaries or not table.metrics or any(name not in ours for name in table.methods):
        return
    means = {name: {metric.name: ours[name][metric.name].mean for metric in table.metrics} for name in table.methods}
    for name, rank in mean_rank(means, table.metrics).items():
        ours[name]["MR"] = Spread(rank, math.nan, 1)


def headings(compared: ComparedTable) -> list[str]:
    """What stands over the columns, without units: those are the same for both."""
    named = {metric.name: f"{metric.label} {'↑' if metric.higher_is_better else '↓'}" for metric in compared.table.metrics}
    return [_WORDS.get(column, named.get(column, column)) for column in compared.columns]


def cells(compared: ComparedTable, row: ComparedRow) -> tuple[list[str], list[str], list[str]]:
    """What a reader sees of a row: published, ours, difference; as many places as were printed."""
    published, ours, differences = [], [], []
    for column in compared.columns:
        text = row.published.get(column, "")
        places = len(text.partition(".")[2]) if text else 2
        own = row.ours.get(column)
        published.append(text or "–")
        ours.append(_spread(own, places) if own is not None else "–")
        differences.append(f"{row.differences[column]:+.{places}f}" if column in row.differences else "–")
    return published, ours, differences


def _spread(own: Spread, places: int) -> str:
    return f"{own.mean:.{places}f}" + (f" ± {own.std:.{places}f}" if own.n > 1 and math.isfinite(own.std) else "")


def write_comparison(recipe: Recipe, folder: Path) -> tuple[ComparedTable, ...]:
    """Writes ``comparison.md`` and ``comparison.json`` into the recipe's folder."""
    compared = compare(recipe, folder)
    write_whole(folder / "comparison.md", "\n".join(_markdown(recipe, compared)) + "\n")
    write_json(folder / "comparison.json", {"recipe": recipe.name, "tables": [_plain(table) for table in compared]})
    return compared


def _markdown(recipe: Recipe, tables: Iterable[ComparedTable]) -> Iterable[str]:
    yield f"# {recipe.source}: {recipe.title}"
    yield ""
    yield "Published numbers as printed; ours are means over seeds, ± one sample standard deviation; differences are ours minus"
    yield "theirs. Δ is against the published single-task row, unless it says otherwise."
    for compared in tables:
        yield ""
        yield f"## {compared.table.source}"
        yield ""
        if not compared.rows:
            yield "Nothing of it has been run."
            continue
        rows = []
        for row in compared.rows:
            seeds = str(max((own.n for own in row.ours.values()), default=0))
            for place, (what, texts) in enumerate(zip(("published", "ours", "difference"), cells(compared, row), strict=True)):
                name, count = (row.name, "") if place == 0 else ("", seeds if place == 1 else "")
                rows.append([name, what, count, *texts])
        yield table(["row", "", "seeds", *headings(compared)], rows, left=2)
        if compared.missing:
            yield ""
            yield f"Not run: {', '.join(compared.missing)}."
        for departure in compared.departures:
            yield ""
            yield f"Different from the paper: {departure}"
        for note in compared.table.notes:
            yield ""
            yield note


def _plain(compared: ComparedTable) -> dict[str, Any]:
    return {
        "table": compared.table.key,
        "rows": [
            {
                "row": row.name,
                "published": {column: float(cell) for column, cell in row.published.items()},
                "ours": {column: {"mean": own.mean, "std": own.std, "n": own.n} for column, own in row.ours.items()},
                "difference": dict(row.differences),
            }
            for row in compared.rows
        ],
        "missing": list(compared.missing),
        "departures": list(compared.departures),
    }
