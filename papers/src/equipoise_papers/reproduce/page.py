"""The guide's tables that are made from recipes and published tables: ``python -m equipoise_papers.reproduce.page FILE …``.

A table stands between ``<!-- recipes: KIND -->`` and ``<!-- end of recipes -->``; what is between them is written anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from equipoise.errors import InputError
from equipoise.markdown import table as laid_out
from equipoise_papers.published import Check, check, published_tables
from equipoise_papers.reproduce.cost import in_words
from equipoise_papers.reproduce.plan import total_hours
from equipoise_papers.reproduce.recipe import Recipe
from equipoise_papers.reproduce.registry import recipes

__all__ = ["KINDS", "filled", "table"]


def _recipes() -> Iterable[Sequence[str]]:
    yield "recipe", "what it makes again", "runs", "a run", "all, one after the other", "not there yet"
    for recipe in recipes():
        times = sorted(part.hours(row) for part in recipe.parts for row in part.made())
        span = (
            in_words(times[0])
            if in_words(times[0]) == in_words(times[-1])
            else f"{in_words(times[0])} to {in_words(times[-1])}"
        )
        yield (
            f"`{recipe.name}`",
            f"{recipe.source}: {recipe.title}",
            _runs(recipe),
            span,
            in_words(total_hours(recipe)),
            "; ".join(_short(recipe)) or "–",
        )


def _runs(recipe: Recipe) -> str:
    rows = sum(len(part.made()) for part in recipe.parts)
    alone = sum(part.workload.tasks for part in recipe.parts if part.baselines)
    return f"{rows} × {recipe.seeds}" + (f", {alone} tasks alone × {recipe.seeds}" if alone else "")


def _short(recipe: Recipe) -> Iterable[str]:
    yield from recipe.missing
    rows = [row.name for part in recipe.parts for row in part.rows if part.obstacle(row)]
    if rows:
        yield f"rows {', '.join(dict.fromkeys(rows))}"


def _settings() -> Iterable[Sequence[str]]:
    yield "recipes", "network", "hyper-parameters"
    grouped: dict[tuple[str, str], list[str]] = {}
    for recipe in recipes():
        for part in recipe.parts:
            grouped.setdefault((part.network, _words(part.hyperparameters)), []).append(recipe.name)
    for (network, words), names in grouped.items():
        yield ", ".join(f"`{name}`" for name in dict.fromkeys(names)), network, words


def _choices() -> Iterable[Sequence[str]]:
    yield "recipes", "what the paper leaves open, or where this departs from it"
    grouped: dict[str, list[str]] = {}
    for recipe in recipes():
        for part in recipe.parts:
            for choice in part.open_choices:
                grouped.setdefault(choice, []).append(recipe.name)
    for choice, names in grouped.items():
        yield ", ".join(f"`{name}`" for name in dict.fromkeys(names)), choice


def _data() -> Iterable[Sequence[str]]:
    yield "recipes", "what `--data` holds"
    grouped: dict[str, list[str]] = {}
    for recipe in recipes():
        grouped.setdefault(recipe.data, []).append(recipe.name)
    for data, names in grouped.items():
        yield ", ".join(f"`{name}`" for name in names), data


def _disagreements() -> Iterable[Sequence[str]]:
    yield "table", "row", "column", "printed", "possible by the printed row", "off by"
    words = {"delta_m": "Δm", "delta_p": "Δ_p", "MR": "MR", "average": "average"}
    for one in (one for published in published_tables() for one in check(published) if not one.agrees):
        yield f"`{one.table}`", one.method, words[one.column], f"{one.printed:g}", _possible(one), f"{one.difference:+.2f}"


def _possible(one: Check) -> str:
    low, high = f"{one.lowest:.2f}", f"{one.highest:.2f}"
    return low if low == high else f"{low} to {high}"


KINDS: dict[str, Callable[[], Iterable[Sequence[str]]]] = {
    "all": _recipes,
    "settings": _settings,
    "choices": _choices,
    "data": _data,
    "disagreements": _disagreements,
}


def table(kind: str) -> str:
    """A Markdown table.

    Args:
        kind: one of :data:`KINDS`.

    Raises:
        InputError: there is no such table.

    Example:
        >>> print(table("disagreements").splitlines()[0])
        | table | row | column | printed | possible by the printed row | off by |
    """
    if kind not in KINDS:
        raise InputError(f'there is no table of recipes "{kind}"; there are {", ".join(KINDS)}')
    head, *rows = KINDS[kind]()
    return laid_out(head, rows, left=len(head), aligned=False) + "\n"


def filled(page: str) -> str:
    """A page with its tables of recipes written anew."""

    def anew(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(match[2])}{match[3]}"

    return re.sub(r"(<!-- recipes: (\w+) -->)\n.*?(<!-- end of recipes -->)", anew, page, flags=re.DOTALL)


def _words(hyperparameters: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in hyperparameters.items())


def _main(files: Sequence[str]) -> None:
    for file in files:
        page = Path(file)
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
