"""Reports in a browser, where one is installed: nothing is cut off on a desk, a tablet and a telephone, and tables answer."""

import html
import json
import re
import shutil
import subprocess

import pytest

from equipoise.study import Results
from equipoise.study.report import write_report
from equipoise.study.report.content import content
from equipoise.study.report.write import render
from equipoise.sweep.report import SweepContent, Table

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1300, 800, 400)
LONG = "cost(budget=None,per_epoch=2,check_every=10,delta=oft(blocks=2))+cagrad:c=0.2,rescale=True"

MEASURE = """<script>
const texts = () => [...document.querySelectorAll(".wide > table")[0].tBodies[0].rows].map((row) => row.cells[0].textContent);
const own = { width: innerWidth, page: document.documentElement.scrollWidth - innerWidth };
own.boxes = [...document.querySelectorAll(".wide")].map((box) => box.scrollWidth - box.clientWidth);
own.images = [...document.images].map((image) => image.getBoundingClientRect().width);
const table = document.querySelector(".wide > table"), head = table.tHead.rows[0].cells[1];
own.before = texts();
head.click();
own.up = texts();
head.click();
own.down = texts();
const boxes = table.closest("section").querySelectorAll(".tools input");
boxes[1].click();
own.row = table.tBodies[0].querySelectorAll("tr[hidden]").length;
boxes[boxes.length - 1].click();
own.cells = table.querySelectorAll("td[hidden], th[hidden]").length;
own.said = table.closest("section").querySelector(".tools summary").textContent;
parent.postMessage(JSON.stringify({ name: location.href + " " + innerWidth, own }), "*");
</script>"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What a browser says of pages: file name and width → measures. One start of the browser for all of them."""

    def measure(folder, pages):
        frames = ""
        for number, page in enumerate(pages):
            copy = folder / f"page{number}.html"
            copy.write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
            frames += "".join(
                f'<iframe src="{copy.name}" width="{width}" height="900" style="border:0"></iframe>' for width in WIDTHS
            )
        wrapper = folder / "frames.html"
        wrapper.write_text(
            "<pre></pre><script>const got = []; addEventListener('message', (event) => { got.push(JSON.parse(event.data)); "
            "document.querySelector('pre').textContent = JSON.stringify(got); });</script>" + frames
        )
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom")
        profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
        done = subprocess.run(
            [CHROMIUM, *options, profile, wrapper.as_uri()], capture_output=True, text=True, timeout=240, check=False
        )
        said = re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
        assert said, done.stderr
        found = json.loads(html.unescape(said[1]))
        return {(int(re.search(r"page(\d)", one["name"])[1]), one["own"]["width"]): one["own"] for one in found}

    return measure


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_nothing_is_cut_off_and_tables_are_sorted_and_hidden(made_up, tmp_path, shown):
    methods = ("ls", "si", "fairgrad", "cagrad:c=0.2,rescale=True", "cost+ls", LONG)
    study = write_report(Results(made_up(methods=methods, tasks=("left side", "right", "sum", "ink"))))[1]
    trials = tuple(
        (
            f"#{k}",
            "ls:weights=[0.9524, 2.403, 0.01395, 0.6307]",
            "18.31",
            "19.4",
            *["89.7 ± 0.1"] * 4,
            "+18.3 ± 3.5",
            "fairgrad, cagrad",
        )
        for k in range(5)
    )
    columns = ("trial", "method", "in the search", "over the seeds", *(f"{name} accuracy (%) ↑" for name in "abcd"))
    table = Table("Confirmed trials", (*columns, "Δm (%) ↓", "its mean is dominated by"), trials, ("A note.",), (0, 1))
    (tmp_path / "sweep").mkdir()
    said = SweepContent("A sweep", ("It was swept.",), (table,), {}, {}, {"swept": "weights over 0.001:1:log"})
    sweep = render("sweep", tmp_path / "sweep", package="equipoise.sweep", said=said, pictures=[])[1]
    study.rename(tmp_path / "first.html")
    shutil.rmtree(tmp_path / "runs")
    eleven = Results(made_up(methods=("ls", "fairgrad", "cost+fairgrad"), tasks=tuple(f"task{k} (meV)" for k in range(11))))
    wide = render("report", tmp_path, said=content(eleven), pictures=[], teleports=[])[1]
    found = shown(tmp_path, [tmp_path / "first.html", sweep, wide])
    assert set(found) == {(page, width) for page in (0, 1, 2) for width in WIDTHS}
    for (page, width), own in found.items():
        assert own["page"] <= 0, (page, width)  # the page itself is never wider than the window
        if width == 1300:
            assert max(own["boxes"]) <= 1, own["boxes"]  # and on a desk no table and no picture has to be scrolled
        assert all(image >= 280 for image in own["images"])
        if width == 400:
            assert all(image >= 600 for image in own["images"])  # text smaller than that cannot be read
    own = found[0, 800]
    assert own["before"][0] == own["up"][0] == own["down"][0] == "single-task"
    assert own["up"][1:] == own["down"][:0:-1]  # levels of the methods differ
    assert own["up"] != own["down"]
    assert own["row"] == 1
    assert own["cells"] == len(own["before"]) + 1
    assert own["said"].endswith("2 hidden")
