"""The tables of methods in README and guide, made from the registry: ``python -m equipoise.balance.tables FILE ...``.

A table stands between ``<!-- methods: KIND -->`` and ``<!-- end of methods -->``; what is between them is written anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from equipoise.balance.registry import MethodInfo, methods
from equipoise.errors import InputError

__all__ = ["KINDS", "filled", "table"]

Column = Callable[[MethodInfo], str]

_NAME: Column = lambda info: f"`{info.name}`"  # noqa: E731  (columns are read side by side)

KINDS: dict[str, dict[str, Column]] = {
    "overview": {
        "method": _NAME,
        "what it does": lambda info: info.summary,
        "cost of a step": lambda info: info.price,
        "paper": lambda info: info.paper,
    },
    "choice": {
        "method": _NAME,
        "class": lambda info: f"`{info.cls.__name__}`",
        "needs": lambda info: info.cost,
        "cost of a step": lambda info: info.price,
        "what it promises": lambda info: info.promise,
        "when to use it": lambda info: info.serves,
        "caveats": lambda info: info.caveats,
    },
    "scales": {
        "method": _NAME,
        "the weights add up to": lambda info: info.adds_up_to,
    },
    "sources": {
        "method": _NAME,
        "paper": lambda info: info.paper,
        "checked against": lambda info: info.checked,
    },
}


def table(kind: str) -> str:
    """A Markdown table of all methods of the library.

    Args:
        kind: ``"overview"``, ``"choice"``, ``"scales"`` or ``"sources"``.

    Raises:
        InputError: there is no such table.

    Example:
        >>> print(table("overview").splitlines()[0])
        | method | what it does | cost of a step | paper |
    """
    if kind not in KINDS:
        raise InputError(f'there is no table of methods "{kind}"; there are {", ".join(KINDS)}')
    columns = KINDS[kind]
    # Methods that a user registered belong to that user's pages.
    shelf = [info for info in methods() if info.cls.__module__.startswith("equipoise.")]
    rows = [list(columns), ["---"] * len(columns), *([cell(info) for cell in columns.values()] for info in shelf)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def filled(page: str) -> str:
    """A page with its tables of methods written anew."""

    def anew(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(match[2])}{match[3]}"

    return re.sub(r"(<!-- methods: (\w+) -->)\n.*?(<!-- end of methods -->)", anew, page, flags=re.DOTALL)


def _main(files: Sequence[str]) -> None:
    for file in files:
        page = Path(file)
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
