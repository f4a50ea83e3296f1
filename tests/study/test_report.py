import html.parser
import itertools
import json
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Annotation, Text
from rich.console import Console

from equipoise.study import Results
from equipoise.study.pictures import PICTURES, RECORDED, TELEPORT_PICTURES
from equipoise.study.pictures.style import spread_apart
from equipoise.study.report import print_results, write_report
from equipoise.study.report.content import content

NAMES = [picture.name for picture in PICTURES]
TWELVE = ("ls", "si", "rlw", "dwa", "uw", "famo", "mgda", "pcgrad", "cagrad:c=0.2,rescale=True", "imtl-g", "nash-mtl", "x")


class _Page(html.parser.HTMLParser):
    """Collects what a page refers to, and checks that its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            assert attributes["alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_report_of_a_real_study(finished, tmp_path):
    results, folder = finished
    markdown, page = write_report(results)
    shown = [name for name in NAMES if name != "seconds"]  # it ran two at a time
    assert {path.name for path in (folder / "pictures").iterdir()} == {f"{name}.png" for name in shown}
    for name in shown:
        assert f"](pictures/{name}.png)" in markdown.read_text()
        assert imread(folder / "pictures" / f"{name}.png").std() > 0.01  # something was drawn
    read = _Page(page.read_text())
    assert len(read.sources) == len(shown)
    assert all(source.startswith("data:image/png;base64,") for source in read.sources)  # one file, nothing else
    text = " ".join(read.text)
    for said in ("fairgrad", "single-task", "test split", "2 seeds per method", "sample standard deviation", "Holm"):
        assert said in text


@pytest.mark.usefixtures("one_picture")
def test_table_holds_what_the_results_say(made_up):
    results = Results(made_up(seeds=(0, 1, 2)))
    said = content(results)
    judged = ("Δm (%) ↓", "worst task Δ (%) ↓", "rank", "mean rank ↓")
    assert said.columns == ("near ↓", "far (%) ↑", *judged, "ms per step", "memory (MB)", "seeds")
    assert [row.name for row in said.rows] == ["single-task", *results.ranking()]
    assert all(len(row.cells) == len(said.columns) for row in said.rows)
    assert said.rows[0].cells[0].text == "10.2 ± 0.2"
    for position in (0, 1, 2, 3):
        assert sum(row.cells[position].best for row in said.rows) >= 1
        assert not said.rows[0].cells[position].best
    lines = write_report(results)[0].read_text().splitlines()
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[lines.index("") + 3 :]))
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + len(said.rows)


def test_times_are_those_of_solo_runs_or_not_shown(made_up):
    results = Results(made_up(methods=("ls", "si", "famo"), baseline={"alone": False}, runs={"alone": False}))
    said = content(results)
    assert "ms per step" not in said.columns
    assert all(len(row.cells) == len(said.columns) for row in said.rows)
    assert any("Times are not shown" in note for note in said.notes)
    assert results.seconds("ls") == []
    assert results.epoch_seconds("ls") == {}
    assert next(picture for picture in PICTURES if picture.name == "seconds").draw(results) is None


def test_one_seed_is_not_given_a_deviation_or_a_verdict(made_up):
    said = content(Results(made_up(seeds=(0,))))
    assert not any("±" in cell.text for row in said.rows for cell in row.cells)
    assert any("nothing can be said about which differences are real" in note for note in said.notes)
    assert {row.verdict for row in said.rows} == {"baseline", "reference", "not tested"}


def test_few_seeds_are_called_few(made_up):
    notes = " ".join(content(Results(made_up(seeds=(0, 1, 2)))).notes)
    assert "«not told apart» does not mean equal" in notes
    notes = " ".join(content(Results(made_up(seeds=tuple(range(12))))).notes)
    assert "With so few seeds" not in notes


@pytest.mark.usefixtures("one_picture")
def test_failed_runs_are_named(made_up):
    folder = made_up()
    (folder / "failed").mkdir()
    (folder / "failed" / "mgda-seed1.txt").write_text("Traceback")
    results = Results(folder)
    markdown, page = write_report(results)
    assert "mgda-seed1: see `failed/mgda-seed1.txt`" in markdown.read_text()
    assert 'href="failed/mgda-seed1.txt"' in page.read_text()


def test_without_delta_m_the_report_says_why(made_up):
    folder = made_up(seeds=(0, 1))
    for path in (folder / "runs").glob("stl~far*"):
        path.unlink()
    markdown, _ = write_report(Results(folder))
    assert 'There is no Δm, because there is no finished single-task baseline of task "far".' in markdown.read_text()
    assert not (folder / "pictures" / "delta_m.png").exists()


def test_nothing_has_finished_yet(made_up):
    folder = made_up()
    for path in (folder / "runs").iterdir():
        path.unlink()
    markdown, _ = write_report(Results(folder))
    assert "No run of a method has finished yet." in markdown.read_text()


@pytest.mark.usefixtures("one_picture")
def test_what_users_name_is_escaped(made_up):
    _, page = write_report(Results(made_up(methods=("ls", "<script>alert(1)</script>"))))
    assert "alert(1)</script>" not in page.read_text()
    _Page(page.read_text())


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_terminal_table_fits(made_up, width, capsys):
    results = Results(made_up(methods=TWELVE[:6]))
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_results(results, console)
    console.file.close()
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    for method in TWELVE[:6]:
        assert re.search(rf"^ {method} .*[+−]\d+\.\d ± \d+\.\d", text, re.MULTILINE), text
    assert ("too narrow" in text) == (width < 120)


CASES = {
    "twelve methods": {"methods": TWELVE},
    "one of everything": {"methods": ("ls",), "seeds": (0,), "tasks": ("only",), "epochs": 1},
    "many tasks, methods alike": {"tasks": tuple(f"task number {k}" for k in range(20)), "methods": TWELVE[:5], "spread": 0.0},
    "long names": {"methods": ("ls", "a balancer with a very long name, longer than others"), "tasks": ("left hand side", "b")},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_and_nothing_is_cut_off(made_up, name, case):
    results = Results(made_up(**CASES[case]))
    _nothing_overlaps(next(picture for picture in PICTURES if picture.name == name).draw(results))


@pytest.mark.parametrize("tasks", [1, 3, 11, 40])
def test_shares_of_weight_fill_their_axis(made_up, tasks):
    results = Results(made_up(methods=("ls",), tasks=tuple(f"t{k}" for k in range(tasks)), seeds=(0,)))
    panel = next(picture for picture in PICTURES if picture.name == "weights").draw(results).axes[0]
    drawn = [share for line in panel.get_lines() for share in line.get_ydata()]
    assert panel.get_ylim()[1] / 3 < max(drawn) <= panel.get_ylim()[1]


@pytest.mark.parametrize("numbers", [3, 40])
def test_what_a_problem_records_is_drawn_by_seed_and_as_their_median(made_up, numbers, monkeypatch):
    folder = made_up(methods=("ls", "fairgrad"), epochs=4)
    for path in (folder / "runs").glob("[01]-seed*.json"):
        record = json.loads(path.read_text())
        seed = record["run"]["seed"]
        for epoch in record["history"]:
            # One seed ends on the other side of 0.
            epoch["recorded"] = {
                f"task {k}": (-1 if seed == 2 else 1) * (1 + k + seed) * epoch["epoch"] for k in range(numbers)
            }
        path.write_text(json.dumps(record))
    figure = RECORDED.draw(Results(folder))
    panel = figure.axes[0]
    assert len(panel.get_lines()) == min(numbers, 12) * (3 + 1)
    median = panel.get_lines()[3]
    assert list(median.get_xdata()) == [1, 2, 3, 4]
    assert list(median.get_ydata()) == [1, 2, 3, 4]  # of 1, 2 and −3 per epoch
    _nothing_overlaps(figure)
    monkeypatch.setattr("equipoise.study.report.write.PICTURES", ())
    markdown, _ = write_report(Results(folder))
    assert "](pictures/recorded.png)" in markdown.read_text()


def test_nothing_is_drawn_where_nothing_is_recorded(made_up):
    assert RECORDED.draw(Results(made_up())) is None


LONG = "cost(budget=None,per_epoch=2,check_every=10,delta=oft,blocks=2)+cagrad:c=0.2,rescale=True"
TELEPORT_CASES = {
    "with and without": {"methods": ("ls", "fairgrad", "cost+ls", "cost+fairgrad")},
    "one attempt of one seed": {"methods": ("ls", "cost+ls"), "seeds": (0,), "epochs": 1, "attempts": 1},
    "without counterparts, many tasks": {"methods": (LONG,), "tasks": tuple(f"task number {k}" for k in range(12))},
    "more methods than are shown": {"methods": ("ls", *(f"cost(gamma=0.{k},start=3)+ls" for k in range(1, 9))), "seeds": (0,)},
    "long names, many attempts": {"methods": ("cagrad:c=0.2,rescale=True", LONG), "seeds": (0,), "attempts": 100},
}


@pytest.mark.parametrize("case", TELEPORT_CASES)
@pytest.mark.parametrize("name", [picture.name for picture in TELEPORT_PICTURES])
def test_pictures_of_teleports_overlap_nowhere(made_up, name, case):
    results = Results(made_up(**TELEPORT_CASES[case]))
    _nothing_overlaps(next(picture for picture in TELEPORT_PICTURES if picture.name == name).draw(results))


@pytest.mark.parametrize("name", [picture.name for picture in PICTURES])
def test_other_pictures_with_names_of_teleporting_methods(made_up, name):
    results = Results(made_up(methods=("ls", "cost(gamma=0.3)+ls", LONG)))
    _nothing_overlaps(next(picture for picture in PICTURES if picture.name == name).draw(results))


def test_pictures_of_teleports_that_never_were_tried(made_up):
    results = Results(made_up(methods=("ls", "cost+ls"), attempts=0))
    drawn = {picture.name for picture in TELEPORT_PICTURES if picture.draw(results) is not None}
    assert drawn == {"teleport_conflicts", "loss_and_conflict", "teleport_seconds"}


def _nothing_overlaps(figure):
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # all is laid out, and nothing painted
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    boxes, hidden = [], _out_of_view(figure)
    for text in figure.findobj(Text):
        if not text.get_visible() or not text.get_text().strip():
            continue
        box = text.get_window_extent(renderer)
        in_view = isinstance(text, Annotation) or box.width * box.height > 0
        if in_view and text not in hidden:
            boxes.append((text.get_text(), box))
    assert len(boxes) > 4
    for text, box in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    low, high = (np.array([corner(box) for _, box in boxes]) for corner in (lambda box: box.min, lambda box: box.max))
    overlaps = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).min(2)
    overlapping = np.argwhere(np.triu(overlaps >= 2, 1))
    assert not len(overlapping), [(boxes[one][0], boxes[other][0]) for one, other in overlapping]


def _out_of_view(figure):
    """Tick labels outside of their axis' limits, which exist but are not drawn."""
    found = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    found |= {tick.label1, tick.label2}
    return found


def test_pictures_leave_pyplot_alone():
    import subprocess
    import sys

    code = "import sys, equipoise.study.report, equipoise.commands; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("heights", [[0.5] * 5, [0.1, 0.9], [0.3, 0.31, 0.32, 0.9, 0.91], [2.0, -1.0, 0.0, 0.04]])
def test_labels_keep_their_distance_and_their_order(heights):
    placed = spread_apart(heights, 0.1)
    order = sorted(range(len(heights)), key=lambda index: (heights[index], index))
    for lower, upper in itertools.pairwise(order):
        assert placed[upper] - placed[lower] >= 0.1 - 1e-9
    assert sum(placed) == pytest.approx(sum(heights))  # moved evenly, up and down
