"""Names are names: in Markdown, in HTML, on the terminal and in pictures they are seen as they are, and do nothing."""

from __future__ import annotations

import io
import json
import re
import warnings
from html import unescape
from importlib.resources import files

import pytest
from rich.console import Console

from equipoise.markdown import code, escaped, table
from equipoise.study import Results
from equipoise.study.report import print_results, write_report
from tests.study.conftest import made_up  # noqa: F401

NASTY = (
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://evil)",
    "**bold** _it_ `code` ~~gone~~",
    "a|b",
    "[bold red]markup[/]",
    "$\\frac{1}{$ and $x$",
    "&amp; &#60;",
    ":smile: \\",
    "tick`s",
)


def render(text: str) -> str:
    """What a reader of Markdown sees of a line, if nothing in it is active."""
    out, place = "", 0
    while place < len(text):
        if text[place] == "\\" and place + 1 < len(text) and not text[place + 1].isalnum():
            place += 1
        out += text[place]
        place += 1
    return out


@pytest.mark.parametrize("name", NASTY)
def test_markdown_shows_it_as_it_is(name) -> None:
    shown = escaped(name)
    assert render(shown) == name
    for active in ("<s", "](", "**", "`"):
        assert active not in re.sub(r"\\.", "", shown)  # without what is escaped
    (row,) = table(["a", "b"], [[shown, "1"]]).splitlines()[2:]
    assert row.replace("\\|", "").count("|") == 3


@pytest.mark.parametrize("start", ["# title", "> quoted", "- entry", "1. entry", "+ entry", "=== ", "--- "])
def test_the_start_of_a_line_begins_nothing(start) -> None:
    assert escaped(start).startswith(("\\", "1\\"))


@pytest.mark.parametrize("usual", ["cagrad:c=0.2", "my_task", "ls:weights=[0.5, 1.5]", "Δm (%) ↓", "+1.2 ± 0.3", "p < 0.001"])
def test_usual_names_stay_as_they_are(usual) -> None:
    assert escaped(usual) == usual


def test_code_holds_whatever_is_in_it() -> None:
    assert code("a``b") == "```a``b```"
    assert code("`") == "`` ` ``"
    assert code("a\nb") == r"`a\nb`"


def test_a_report_of_nasty_names(made_up) -> None:  # noqa: F811
    tasks = (NASTY[0], "[bold]near[/]\x1b[2J")
    folder = made_up(methods=("ls", *NASTY[1:]), tasks=tasks, seeds=(0,), epochs=1)
    known = json.loads((folder / "study.json").read_text())
    known["problem"]["name"] = "# <b>$\\bad{$\nname"
    known["problem"]["options"] = {"<i>x</i>": "*y*"}
    (folder / "study.json").write_text(json.dumps(known))
    (folder / "failed").mkdir()
    (folder / "failed" / "<img src=x>`.txt").write_text("")
    results = Results(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Glyph")
        markdown, html = write_report(results)  # formulas that are none would end a picture
    text = markdown.read_text()
    for active in ("<script", "](javascript", "](http", "<img", "<b>", "<i>", "\x1b", "\n# <"):
        assert active not in re.sub(r"\\.|(?<= )`.*`(?=\n)", "", text), active
    # The page has one script of its own, which sorts tables; nothing that users name is in it.
    page, _, own = html.read_text().partition("<script>")
    assert "<script" not in page + own
    assert own.partition("</script>")[0].strip() == files("equipoise.study").joinpath("templates/table.js").read_text().strip()
    assert "<img src=x" not in html.read_text()
    assert unescape(html.read_text()).count(NASTY[3]) > 0
    console = Console(file=io.StringIO(), width=200, force_terminal=True, record=True)
    print_results(results, console)
    shown = console.export_text()
    assert "[bold]near[/]" in " ".join(shown.split()) or "[bold]near" in shown
    assert "\x1b[2J" not in console.file.getvalue()
    assert "[bold red]markup[/]" in shown
    assert "😄" not in shown
