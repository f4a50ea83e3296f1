"""What is written down of the methods, made from the registry: ``python docs/tables.py FILE ...``, by ``make tables``.

The guide has tables, between ``<!-- methods: KIND -->`` and ``<!-- end of methods -->``. Two ``__init__.py`` have lists of the
classes, so that type checkers and editors know what is found by scanning a folder, between ``# methods: KIND`` and
``# end of methods``. This module rewrites what is between them.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from equipoise import markdown
from equipoise.balance.registry import MethodInfo, methods
from equipoise.errors import InputError

__all__ = ["KINDS", "filled", "source", "table"]

Column = Callable[[MethodInfo], str]

_LOOKS_AT = {"losses": "losses", "gramian": "Gramian", "gradients": "gradients"}


def _linked(info: MethodInfo) -> str:
    """The file that says everything about a method; the site leads to the method's page instead."""
    return f"[`{info.name}`](../src/{info.cls.__module__.replace('.', '/')}.py)"


KINDS: dict[str, dict[str, Column]] = {
    "choice": {
        "method": _linked,
        "idea": lambda info: info.summary,
        "looks at": lambda info: _LOOKS_AT[info.cost],
        "cost of a step": lambda info: info.price,
        "when to use it": lambda info: info.serves,
        "mind": lambda info: info.caveats,
    },
    "preferences": {
        "method": _linked,
        "a larger p_k": lambda info: "lets ℓ_k be larger" if info.ray else "makes task k count more",
        "what `preference` does": lambda info: info.preference.partition(": ")[2],
    },
}


def table(kind: str) -> str:
    """A Markdown table of all methods of the library.

    Args:
        kind: ``"choice"``, or ``"preferences"`` of the methods that have one.

    Raises:
        InputError: there is no such table.

    Example:
        >>> print(table("choice").splitlines()[0])
        | method | idea | looks at | cost of a step | when to use it | mind |
    """
    if kind not in KINDS:
        raise InputError(f'there is no table of methods "{kind}"; there are {", ".join(KINDS)}')
    columns = KINDS[kind]
    rows = [[cell(info) for cell in columns.values()] for info in _own() if kind != "preferences" or info.preference]
    return markdown.table(list(columns), rows, len(columns), aligned=False) + "\n"


def source(kind: str) -> str:
    """Python that names the classes of all methods of the library.

    Args:
        kind: ``"classes"`` for their imports where a type checker looks, ``"names"`` for what ``__all__`` has of them.

    Raises:
        InputError: neither of the two.
    """
    if kind == "classes":
        lines = sorted(f"    from {info.cls.__module__} import {_class(info)} as {_class(info)}\n" for info in _own())
        return "".join(["if TYPE_CHECKING:\n", *lines])
    if kind == "names":
        # Ruff's order: names in capitals come first.
        names = sorted((_class(info) for info in _own()), key=lambda name: (not name.isupper(), name))
        quoted = ", ".join(f'"{name}"' for name in names)
        lines = textwrap.wrap(quoted, 128, initial_indent="    ", subsequent_indent="    ")
        return "".join(["# fmt: off\n", "__all__ += [\n", *(f"{line}\n" for line in lines), "]\n", "# fmt: on\n"])
    raise InputError(f'there is no list of classes "{kind}"; there are classes and names')


def filled(text: str) -> str:
    """A page with its tables of methods rewritten, or a Python file with its lists."""

    def rewritten(match: re.Match[str]) -> str:
        made = table(match[2]) if match[1].startswith("<") else source(match[2])
        return f"{match[1]}\n{made}{match[3]}"

    for start, end in (("<!-- methods: (\\w+) -->", "<!-- end of methods -->"), ("# methods: (\\w+)", "# end of methods")):
        text = re.sub(rf"(^{start})\n.*?(^{end}$)", rewritten, text, flags=re.DOTALL | re.MULTILINE)
    return text


def _own() -> list[MethodInfo]:
    # Methods that a user registered belong to that user's pages.
    return [info for info in methods() if info.cls.__module__.startswith("equipoise.balance.")]


def _class(info: MethodInfo) -> str:
    return info.cls.__name__


def _main(files: Sequence[str]) -> None:
    for file in files:
        page = Path(file)
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
