"""A table beside the main one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SideTable"]


@dataclass(frozen=True)
class SideTable:
    """One line a method.

    Attributes:
        columns: headings, that of the names first.
        rows: as many texts each.
        notes: how to read it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
