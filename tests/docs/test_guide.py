"""The guide keeps up with the library: every method is in its tables, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.tables import filled, table
from website import tree

import equipoise as eq

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "choosing-a-method.md"
PAGES = sorted(page for folder in ("docs", "docs/integrations", "papers/docs") for page in (ROOT / folder).glob("*.md"))
# Whatever other tests or the guide itself register does not belong into its tables.
METHODS = {info.name: info for info in eq.methods() if info.cls.__module__.startswith("equipoise.")}


@pytest.mark.parametrize("page", [PAGE, ROOT / "docs" / "preferences.md"], ids=lambda page: page.name)
def test_the_table_of_methods_is_what_the_registry_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- methods: " in text
    assert filled(text) == text, "write the table again: make tables"


def test_the_decision_tree_is_what_its_data_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert tree.listed() in text, "write the tree again: make tables"
    assert tree.PICTURE.read_text(encoding="utf-8") == tree.picture(), "draw the tree again: make tables"


AT_MOST = {"summary": 110, "promise": 110, "serves": 110, "caveats": 110, "price": 60}


def test_every_method_says_what_the_tables_need_and_no_more() -> None:
    for info in METHODS.values():
        assert getattr(eq, info.cls.__name__) is info.cls
        for fact in ("summary", "paper", "price", "promise", "serves", "caveats", "adds_up_to", "checked"):
            said = getattr(info, fact)
            assert said, f"{info.name} does not say its {fact}"
            assert "|" not in said
            if fact in AT_MOST:
                room = AT_MOST[fact]
                told = f"{fact} of {info.name}: {len(said)} characters, {room} fit; say the rest in its docstring"
                assert len(said) <= room, told


def test_there_is_no_other_table_of_methods() -> None:
    with pytest.raises(eq.InputError, match='no table of methods "all"'):
        table("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_says_what_it_is_for(page: Path) -> None:
    title, _, promise, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert promise
    assert "After this page you " in page.read_text(encoding="utf-8").partition("\n## ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_guide_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.is_file(), f"{page.name} links to {name}, which does not exist"
        assert not anchor or anchor in headings(other), f"{page.name} links to {target}"


def test_the_index_links_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([\w/.-]+\.md)\)", index)}
    assert linked == set(PAGES) - {ROOT / "docs" / "index.md"}


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
