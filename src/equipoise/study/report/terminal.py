"""Tables on the terminal."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equipoise.study.names import shortened
from equipoise.study.report.content import Content, content
from equipoise.study.results import Results
from equipoise.study.task_weights import Entry

__all__ = ["facts", "print_method", "print_methods", "print_results"]

_SHORTEST_NAME = 16  # a name cut shorter than that says nothing


def print_results(results: Results, console: Console) -> None:
    """Prints the outcome of a study; on a narrow terminal the metrics are left to the report."""
    said = content(results)
    metrics = len(results.metrics)
    # What there is room for: everything, all but the metrics, Δm with worst task and rank, or Δm alone.
    choices = (
        range(len(said.columns)),
        range(metrics, len(said.columns)),
        range(metrics, metrics + 3),
        range(metrics, metrics + 1),
    )
    tables = [_table(said, choice) for choice in choices]
    _, least = tables[-1]
    if least > console.width:
        # Names can be long, with all the options of a method; the numbers beside them must not break.
        longest = max(len(row.name) for row in said.rows)
        room = max(longest - (least - console.width), _SHORTEST_NAME)
        tables.append(_table(said, choices[-1], lambda name: shortened(results.short(name), room)))
    shown = next((table for table, width in tables if width <= console.width), tables[-1][0])
    complete = shown is tables[0][0]
    console.print()
    console.print(Text(said.title, style="bold"))
    for finding in said.findings:
        console.print(Text(f"! {finding}", style="yellow"))
    console.print(shown)
    console.print(Text(said.lead))
    console.print(Text(said.notes[0], style="dim"))
    if not complete:
        console.print(Text("The terminal is too narrow for the rest of the table; it is in the report.", style="dim"))
    for key, path in said.failures.items():
        console.print(Text(f"failed: {key}, see {results.folder.path / path}", style="red"), soft_wrap=True)
    for file, why in said.unread.items():
        console.print(Text(f"does not count: {file}: {why}", style="red"), soft_wrap=True)


def _table(said: Content, which: range, shown: Callable[[str], str] = str) -> tuple[Table, int]:
    """The table with names as shown, and how many characters a terminal must have for it."""
    names = [shown(row.name) for row in said.rows]
    columns = [
        ("method", names),
        *((said.columns[position], [row.cells[position].text for row in said.rows]) for position in which),
        (f"Δm against {said.reference}", [row.verdict for row in said.rows]),
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    total = 0
    for place, (heading, texts) in enumerate(columns):
        # Headings break at their spaces; names and numbers do not break.
        width = max(map(len, (*heading.split(), *texts)))
        table.add_column(Text(heading), width=width, justify="right" if 0 < place < len(columns) - 1 else "left")
        total += width + 3
    for name, row in zip(names, said.rows, strict=True):
        cells = (Text(row.cells[position].text, "bold green" if row.cells[position].best else "") for position in which)
        table.add_row(Text(name), *cells, Text(row.verdict), style="dim" if row.baseline else "", end_section=row.baseline)
    return table, total


def print_methods(balancers: Sequence[Entry], on_validation: Sequence[Entry], console: Console) -> None:
    """Prints the methods: name, what it does, cost, options, paper."""
    if balancers:
        _print_entries(balancers, console)
        _say(
            "What a step costs: losses, one backward pass; gramian or gradients, one backward pass per task. "
            'Options are given as in "cagrad:c=0.2". In studies COST goes on top of any of them: '
            '"cost(gamma=0.2)+cagrad:c=0.2".',
            console,
        )
    if on_validation:
        console.print("\nMethods that learn task weights on validation data:", style="bold")
        _print_entries(on_validation, console)
        _say(
            "A step costs several backward passes and steps on two levels (bilevel). In studies the validation data are a part "
            'of the training data, put aside (holdout), or half of every batch ("forum:holdout=none").',
            console,
        )
    _say('"equipoise methods NAME" tells everything about one of them.', console)


def print_method(info: Entry, console: Console) -> None:
    """Prints everything that is known of one method."""
    said = facts(info)
    console.print(Text(info.name, style="bold"))
    console.print(Text(info.summary))
    console.print(Text(info.paper, style="dim"))
    console.print()
    for name, value in said.items():
        if value and name not in ("name", "summary", "paper", "options"):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            console.print(Text.assemble((f"{name.replace('_', ' ')}: ", "bold"), shown))
    for name, default in said["options"].items():
        console.print(
            Text.assemble(("option ", "bold"), f"{name}={default}" if default != "required" else f"{name} (required)")
        )


def facts(info: Entry) -> dict[str, Any]:
    """What is known of a method as plain values; defaults of options that are no numbers, texts or lists are written out."""
    found: dict[str, Any] = {"name": info.name, "summary": info.summary, "paper": info.paper, "needs": info.cost}
    told = ("aliases", "price", "promise", "serves", "caveats", "preference", "adds_up_to", "checked")
    found |= {name: list(value) if isinstance(value, tuple) else value for name in told if (value := getattr(info, name, None))}
    common = {"metric": None} if getattr(info, "takes_metric", False) else {}
    return {**found, "options": {name: _plain(default) for name, default in {**info.options, **common}.items()}}


def _plain(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, tuple | list):
        return [_plain(entry) for entry in default]
    finite = not isinstance(default, float) or math.isfinite(default)
    return default if isinstance(default, bool | int | float | str | None) and finite else str(default)


def _say(text: str, console: Console) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _print_entries(entries: Iterable[Entry], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "costs", "options", "what it does, and where it comes from"):
        table.add_column(heading, no_wrap=heading in ("method", "costs", "options"))
    for info in entries:
        options = "\n".join(
            name if default is inspect.Parameter.empty else f"{name}={default}" for name, default in info.options.items()
        )
        about = Text.assemble(info.summary, "\n", (info.paper, "dim"))
        table.add_row(Text(info.name, style="bold"), Text(info.cost), Text(options), about, end_section=True)
    console.print(table)
