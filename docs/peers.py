"""What other libraries have and what it is called here: ``python docs/peers.py docs/peers.md``, by ``make tables``.

The list is ``docs/data/peers.csv``. The page has a table per peer and two lists, between ``<!-- peers: KIND -->`` and
``<!-- end of peers -->``; this module rewrites what is between them. A test holds the list against TorchJD as installed and
against what there is here.
"""

from __future__ import annotations

import csv
import importlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise import bilevel, markdown
from equipoise.balance.registry import REGISTRY, MethodInfo, methods
from equipoise.errors import EquipoiseError, InputError

__all__ = ["PEERS", "Row", "counterpart", "filled", "only_here", "rows", "table", "unread"]

LIST = Path(__file__).parent / "data" / "peers.csv"
PEERS = ("TorchJD", "LibMTL", "LibMOON")


@dataclass(frozen=True)
class Row:
    """One thing that a peer has.

    Attributes:
        peer: whose it is.
        at: the version or commit that was looked at.
        part: of the peer.
        theirs: what it is called there.
        ours: a method, a task weighting or an object by its path; empty if there is no counterpart.
        difference: in a few words; the reason, where there is no counterpart.
    """

    peer: str
    at: str
    part: str
    theirs: str
    ours: str
    difference: str


def rows(peer: str | None = None) -> list[Row]:
    """The list, or a peer's part of it."""
    with LIST.open(encoding="utf-8", newline="") as file:
        return [row for row in (Row(**entry) for entry in csv.DictReader(file)) if peer in (None, row.peer)]


def counterpart(ours: str) -> Any:
    """What a name of ours stands for.

    Raises:
        InputError: nothing here is called that.

    Example:
        >>> counterpart("mgda").cls.__name__
        'MGDA'
    """
    try:
        return REGISTRY.find(ours)
    except EquipoiseError:
        pass
    if any(info.name == ours for info in bilevel.weightings()):
        return bilevel.weighting(ours)
    parts = ours.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
            for part in parts[cut:]:
                found = getattr(found, part)
            return found
        except (ImportError, AttributeError):
            continue
    raise InputError(f'nothing here is called "{ours}"; docs/data/peers.csv names methods, task weightings and paths')


def table(peer: str) -> str:
    """A Markdown table of what a peer has."""
    lines = [
        [
            row.part,
            f"`{row.theirs}`" if re.fullmatch(r"\w+", row.theirs) else row.theirs,
            f"`{row.ours}`" if row.ours else "none",
            row.difference,
        ]
        for row in rows(peer)
    ]
    at = {row.at for row in rows(peer)}
    having = sum(bool(row.ours) for row in rows(peer))
    made = markdown.table(["part", "theirs", "here", "difference"], lines, 4, aligned=False)
    return f"{peer} at {', '.join(sorted(at))}: {len(lines)} entries, {having} with a counterpart here.\n\n{made}\n"


def only_here() -> str:
    """The methods that no peer has, in a sentence."""
    known = {id(counterpart(row.ours)) for row in rows() if row.ours}
    return _sentence(info for info in _own() if id(info) not in known)


def unread() -> str:
    """The methods whose paper's text was not available, or not all of it, as their docstrings say."""
    return _sentence(info for info in _own() if re.search(r"text\s+was\s+not\s+available", info.cls.__doc__ or ""))


def filled(text: str) -> str:
    """A page with its tables and lists rewritten."""
    kinds = {peer.lower(): lambda peer=peer: table(peer) for peer in PEERS} | {"only-here": only_here, "unread": unread}

    def rewritten(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{kinds[match[2]]()}\n{match[3]}"

    return re.sub(r"(^<!-- peers: ([\w-]+) -->)\n.*?(^<!-- end of peers -->$)", rewritten, text, flags=re.DOTALL | re.MULTILINE)


def _own() -> list[MethodInfo]:
    return [info for info in methods() if info.cls.__module__.startswith("equipoise.balance.")]


def _sentence(infos: Iterable[MethodInfo]) -> str:
    names = [f"`{info.name}`" for info in sorted(infos, key=lambda info: info.name)]
    return f"{len(names)}: {', '.join(names)}.\n"


if __name__ == "__main__":
    for file in sys.argv[1:]:
        page = Path(file)
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
