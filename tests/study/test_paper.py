"""Pictures and tables for a paper."""

import re
import shutil
import subprocess
import warnings

import pytest

from equipoise.cli import main
from equipoise.errors import InputError
from equipoise.study import Results
from equipoise.study.pictures.style import COLORS, STYLES, grid, method_looks, on_page, single
from equipoise.study.report import study_paper
from equipoise.study.report.content import content
from equipoise.study.report.paper import latex, latex_table

ALL = [chr(ord("a") + place) for place in range(24)]


def rows_of(text):
    """The cells of a table, without the comments above it."""
    inside = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip()
    return [line.removesuffix(r" \\").split(" & ") for line in inside.splitlines()]


def test_a_study_for_a_paper(finished, capsys):
    _, folder = finished
    assert main(["report", str(folder), "--paper"]) == 0
    assert f"For a paper: {folder / 'paper'}" in capsys.readouterr().out.replace("\n", "")
    pictures = {path.stem for path in (folder / "pictures").iterdir()}
    assert {path.stem for path in (folder / "paper").glob("*.pdf")} == pictures
    before = {path.name: path.read_bytes() for path in (folder / "paper").iterdir()}
    for name in pictures:
        image = before[f"{name}.pdf"]
        assert image.startswith(b"%PDF")
        width = float(re.search(rb"/MediaBox \[\s*0 0 ([\d.]+)", image)[1])
        assert width <= 6.75 * 72 + 0.01
        assert b"/Type3" not in image  # letters that publishers take
    study_paper(Results(folder))
    assert {path.name: path.read_bytes() for path in (folder / "paper").iterdir()} == before


@pytest.mark.usefixtures("one_picture")
def test_its_table_is_that_of_the_report(made_up):
    results = Results(made_up(seeds=(0, 1, 2)))
    text = (study_paper(results) / "results.tex").read_text()
    said = content(results)
    cells = rows_of(text)
    assert len(said.head) > 8 > len(said.rows)  # so it was turned over
    assert [row[0] for row in cells] == [latex(head) for head in said.head[1:]]
    assert cells[0][1] == r"10.2 $\pm$ 0.2"
    for row, column in zip(cells, zip(*(own.cells for own in said.rows), strict=True), strict=False):
        assert [cell.startswith(r"\textbf{") for cell in row[1:]] == [cell.best for cell in column]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_takes_any_name(tmp_path):
    names = ["a_b", "50 %", r"\input{x}", "{", "$x$ & #1", "~^|<>", "Δm ± 1 − 2 × 3 → ≤ ≥ ↓ ↑ · ° ² ³ αλμεσ – «x»"]
    table = latex_table(["method", "name"], [[name, name] for name in names], ["50 % of\nit"])
    lines = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", table, r"\end{document}"]
    (tmp_path / "x.tex").write_text("\n".join(lines))
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-2000:]


def test_names_stay_names():
    assert latex(r"a_b\c{}50%&#$") == r"a\_b\textbackslash{}c\{\}50\%\&\#\$"
    assert latex_table(["m", "v"], [["****", "**"]]).count("textbf") == 0


def test_a_picture_that_cannot_be_drawn_is_left_out(finished, monkeypatch):
    _, folder = finished
    monkeypatch.setattr("equipoise.study.pictures.style.Figure.__init__", lambda *_, **__: 1 / 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = study_paper(Results(folder))
    assert caught
    assert all("cannot be drawn (division by zero" in str(one.message) for one in caught)
    assert not list(there.glob("*.pdf"))
    assert (there / "results.tex").exists()
    shutil.rmtree(there)
    there.symlink_to(folder)
    with pytest.raises(InputError, match="link"):
        study_paper(Results(folder))
    there.unlink()


def test_a_method_looks_the_same_everywhere():
    looks = method_looks(["si", "ls", "cagrad:c=0.2", "cagrad:c=0.4", "rlw"])
    assert len(set(looks.values())) == 5
    assert looks["ls"] == method_looks(["ls"])["ls"] == method_looks(["rlw", "ls"])["ls"]
    assert looks["cagrad:c=0.2"] == method_looks(["cagrad"])["cagrad"]
    assert list(looks) == ["si", "ls", "cagrad:c=0.2", "cagrad:c=0.4", "rlw"]
    assert len(set(method_looks(ALL).values())) == 24 == (len(COLORS) - 1) * len(STYLES)
    assert len(method_looks([*ALL, "one more"])) == 25  # two share a look


def test_panels_on_a_page():
    with on_page():
        figure, panels = grid(11, columns=4, width=2.6, height=3.0)
        alone, _ = single(7.5, 4.0)
    assert figure.get_figwidth() <= 6.75
    assert figure.get_figheight() <= 8.7
    assert len(panels) == 11
    assert alone.get_figwidth() == 6.75
    assert grid(11, columns=4, width=2.6, height=3.0)[0].get_figwidth() > 6.75  # and not afterwards
