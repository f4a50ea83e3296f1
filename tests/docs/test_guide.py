"""The guide keeps up with the library: every method is in its tables, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import equipoise as eq

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Whatever other tests or the guide itself register does not belong into its tables.
SHELF = {info.name: info for info in eq.methods() if info.cls.__module__.startswith("equipoise.")}


def tables(page: str) -> list[list[list[str]]]:
    """The tables of a page: for each of them its rows, heading first, for each row its cells."""
    found: list[list[list[str]]] = []
    inside = False
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
        inside = True
        if not re.fullmatch(r"[|\s:-]+", line):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_table_of_methods_lists_the_shelf() -> None:
    (methods,) = [table for table in tables("choosing-a-method.md") if table[0][:3] == ["method", "class", "needs"]]
    rows = {row[0].strip("`"): row for row in methods[1:]}
    assert len(rows) == len(methods) - 1, "a method is listed twice"
    assert rows.keys() == SHELF.keys()
    for name, row in rows.items():
        assert row[1].strip("`") == SHELF[name].cls.__name__
        assert getattr(eq, SHELF[name].cls.__name__) is SHELF[name].cls
        assert row[2] == SHELF[name].cost, name
        assert all(row), f"a cell of {name} is empty"


def test_the_table_of_scales_lists_the_shelf() -> None:
    (scales,) = [table for table in tables("choosing-a-method.md") if table[0] == ["method", "the weights add up to"]]
    listed = [name for row in scales[1:] for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(listed) == sorted(SHELF)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_says_what_it_is_for(page: Path) -> None:
    title, _, promise, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert promise
    assert "After this page you " in page.read_text(encoding="utf-8").partition("\n## ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_guide_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith(("http", "..")):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.is_file(), f"{page.name} links to {name}, which does not exist"
        assert not anchor or anchor in headings(other), f"{page.name} links to {target}"


def test_the_index_links_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {page.name for page in PAGES} - {"index.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
