"""The site's assembly; ``make docs`` renders it, with warnings as errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from website import methods, pages, pictures, reference
from website.build import HOME

import equipoise as eq

METHODS = [info for info in eq.methods() if info.cls.__module__.startswith("equipoise.balance.")]


def test_every_page_of_the_guide_is_in_one_part_and_in_one_place() -> None:
    where = pages.places()
    assert len(set(where.values())) == len(where)
    assert where["docs/index.md"] == "guide.md"
    assert where["papers/docs/scenes.md"] == "papers/scenes.md"


def test_a_page_that_is_in_no_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    part = pages.PARTS[0]
    monkeypatch.setattr(pages, "PARTS", (pages.Part(part.title, part.promise, part.pages[1:]), *pages.PARTS[1:]))
    with pytest.raises(SystemExit, match=re.escape(f"{part.pages[0]} (in no part)")):
        pages.places()


def test_links_lead_to_the_new_places_and_code_stays_as_it_is() -> None:
    where = {
        "docs/integrations/index.md": "integrations/index.md",
        "README.md": "index.md",
        "papers/docs/scenes.md": "papers/scenes.md",
    }
    text = "[a](../../README.md#install) [b](../../papers/docs/scenes.md)\n```python\nmodel[0](README.md)\n```\n"
    text += "[c](../data/price.csv) [`mgda`](../../src/equipoise/balance/mgda.py)"
    moved, files = pages.moved(text, "docs/integrations/index.md", where)
    assert moved.startswith("[a](../index.md#install) [b](../papers/scenes.md)")
    assert "model[0](README.md)" in moved
    assert "[`mgda`](../methods/mgda.md)" in moved
    assert files == {"docs/data/price.csv"}


def test_every_room_is_in_the_reference() -> None:
    rooms = {path.parent.name for path in Path(eq.__file__).parent.glob("*/__init__.py")}
    assert rooms <= set(reference.ROOMS)


def test_every_method_has_a_page_with_its_facts_and_its_rows(tmp_path: Path) -> None:
    assert methods.write(tmp_path, drawn=False) == [info.name for info in METHODS]
    page = (tmp_path / "methods" / "cagrad.md").read_text(encoding="utf-8")
    assert eq.balance.registry.REGISTRY.find("cagrad").promise.replace("|", "\\|") in page
    assert "## On digits" in page
    assert ".. autoclass:: equipoise.CAGrad" in page
    index = (tmp_path / "methods" / "index.md").read_text(encoding="utf-8")
    assert all(f"[`{info.name}`]({info.name}.md)" in index for info in METHODS)


def test_pictures_are_drawn_by_the_method_itself(tmp_path: Path) -> None:
    mean = pictures.direction_of(eq.balance.registry.REGISTRY.find("ls"), looks=2)
    assert (mean - pictures.GRADIENTS.mean(0) / pictures.GRADIENTS.mean(0).norm()).norm() < 1e-3
    nash = pictures.direction_of(eq.balance.registry.REGISTRY.find("nash-mtl"), looks=2)
    assert (pictures.GRADIENTS @ nash > 0).all()


def test_home_shows_the_one_line_change_and_a_picture_that_is_there() -> None:
    assert "balanced_loss" in HOME
    assert (pages.ROOT / "docs" / re.search(r"\]\((pictures/.*?)\)", HOME).group(1)).is_file()
