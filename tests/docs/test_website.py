"""The site's assembly; ``make docs`` renders it, with warnings as errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from website import concepts, evidence, gallery, methods, pages, pictures, reference
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
    written = methods.write(tmp_path, drawn=False)
    assert [page.stem for page in written] == [*(info.name for info in METHODS), "index"]
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


def test_a_script_is_run_cell_by_cell_and_its_figures_need_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gallery.sys.modules, "__main__", gallery.sys.modules["__main__"])
    script = tmp_path / "small.py"
    text = (
        '"""Title\n\nText.\n"""\n\n# %%\n# What *it* does.\n# And why.\nprint(6 * 7)\n\n# %%\nimport matplotlib.pyplot as plt\n'
    )
    script.write_text(f'{text}figure = plt.figure(num="a line")\n', encoding="utf-8")
    found = gallery.run(script, tmp_path)
    assert [cell["printed"] for cell in found["cells"]] == ["", "42\n", ""]
    assert found["cells"][2]["pictures"] == [("small-2-0.png", "a line")]
    assert (tmp_path / "small-2-0.png").stat().st_size > 0
    assert gallery.cells_of(script.read_text(encoding="utf-8"))[1].text == "What *it* does.\nAnd why."
    script.write_text(f"{text}plt.figure()\n", encoding="utf-8")
    with pytest.raises(ValueError, match="alternative text"):
        gallery.run(script, tmp_path)


def test_the_gallery_shows_every_script_and_a_failure_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = gallery.write(tmp_path / "source", tmp_path / "kept", executed=False)
    assert {page.stem for page in written if page.suffix == ".md"} == {"index", *gallery.ORDER}
    assert len(gallery.ORDER) == 12
    monkeypatch.setattr(gallery, "ORDER", gallery.ORDER[1:])
    with pytest.raises(SystemExit, match="own_loop"):
        gallery.write(tmp_path / "source", tmp_path / "kept", executed=False)
    bad = tmp_path / "bad.py"
    bad.write_text('"""Bad"""\n# %%\n1 / 0\n', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"bad\.py failed(?s:.*)line 3(?s:.*)ZeroDivisionError"):
        gallery.outcome_of(bad, tmp_path)


def test_the_cheapest_example_of_the_gallery_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gallery.sys.modules, "__main__", gallery.sys.modules["__main__"])
    script = tmp_path / "ldc_explained.py"
    text = (gallery.SCRIPTS / "ldc_explained.py").read_text(encoding="utf-8")
    script.write_text(text.replace("steps=1500", "steps=120"), encoding="utf-8")
    found = gallery.run(script, tmp_path)
    assert sum("sum of gaps" in cell["printed"] for cell in found["cells"]) == 1


def test_evidence_says_what_came_of_every_study_and_has_every_method(tmp_path: Path) -> None:
    text = evidence.write(tmp_path, pages.places()).read_text(encoding="utf-8")
    for study in ("All methods on digits", "All methods on QM9", "The price", "COST", "NORMAL"):
        assert f"## {study}\n" in text
    row = next(line for line in text.splitlines() if line.startswith("| [`fairgrad`]"))
    assert "−0.8 ± 3.0" in row
    assert "by proxy" in row


def test_pages_that_did_not_change_keep_their_time(tmp_path: Path) -> None:
    page = pages.put(tmp_path / "a" / "page.md", "text")
    before = page.stat().st_mtime_ns
    assert pages.put(page, "text").stat().st_mtime_ns == before
    assert pages.put(page, "other").read_text(encoding="utf-8") == "other"


def test_the_ideas_show_every_picture_that_is_drawn() -> None:
    text = (pages.ROOT / "docs" / "ideas.md").read_text(encoding="utf-8")
    assert set(re.findall(r"pictures/ideas/([\w-]+)\.svg", text)) == set(concepts.PICTURES)
    assert {path.stem for path in concepts.FOLDER.glob("*.svg")} == set(concepts.PICTURES)
