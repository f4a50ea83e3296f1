"""Plain English in pages and docstrings: no archaisms, no em dashes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("*.md", "docs", "papers", "benchmarks", "src", "website", "gallery")
FORBIDDEN = {
    r"\bdear(?:er|est|ly)?\b": "expensive",
    r"\bas ever\b": "as always, or nothing",
    r"\bsp(?:eaks?|oke) against\b": "is a reason not to",
    r"\bheld against\b": "compared with, checked against",
    r"\breckon(?:s|ed|ing)?\b": "count, expect, think",
    r"\bhence(?:forth)?\b": "so",
    r"\b(?:thereof|wherein|herein|hereof|thereby|whereby|hitherto)\b": "other words",
    r"\b(?:whilst|amongst|lest|albeit|thrice|nigh|naught|forthwith)\b": "while, among, though, at once",
    "—": "a comma, a colon, or a full stop",
}
FOUND = re.compile("|".join(f"({pattern})" for pattern in FORBIDDEN), re.IGNORECASE)


def test_pages_and_docstrings_are_in_plain_english() -> None:
    files = [file for place in PLACES for file in ([*ROOT.glob(place)] if "*" in place else (ROOT / place).rglob("*"))]
    assert len(files) > 500
    told = [
        f"{file.relative_to(ROOT)}: {found[0]!r}; say {[*FORBIDDEN.values()][(found.lastindex or 1) - 1]}"
        for file in files
        if file.suffix in (".md", ".py")
        for found in FOUND.finditer(file.read_text(encoding="utf-8"))
    ]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("said", ["This is dear.", "It thereby stops — and starts.", "Held against released code"])
def test_archaisms_are_found(said: str) -> None:
    assert FOUND.search(said)
