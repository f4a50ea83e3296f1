"""A real study of a method with and without teleports, from training to the report."""

import json
import math
import re
import shutil

import pytest
from matplotlib.image import imread
from tests.study.attempts import COST, LABEL
from tests.study.timeless import timeless, timeless_records

from equipoise.cli import main
from equipoise.store import read_json, write_json
from equipoise.study import Results, Study, parse_method
from equipoise.study.pictures import PICTURES, TELEPORT_PICTURES
from equipoise.study.plan import Run
from equipoise.study.report import write_report
from equipoise.study.report.teleports import teleport_table
from equipoise.study.training import train
from equipoise.teleport import TeleportReport

NAME = f"{LABEL}+ls"


def test_records(teleported):
    results, _ = teleported
    record = results.records(NAME)[0]
    assert record["run"]["options"]["teleport"]["rank"] == 2
    assert len(record["teleports"]) > 2
    assert {attempt["accepted"] for attempt in record["teleports"]} == {True, False}
    assert all(epoch["seconds"] > 0 for epoch in record["history"])
    total = sum(epoch["seconds"] for epoch in record["history"])
    assert total == pytest.approx(record["seconds_a_step"]["mean"] * record["seconds_a_step"]["steps"])
    assert sum(attempt["seconds"] for attempt in record["teleports"]) < total
    assert record["points"]["step"] == list(range(9))
    assert record["points"]["epoch"] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert record["points"]["loss"][0] == 1.0
    for tasks in ("near", "far"):
        assert record["points"]["scales"][tasks] > 0
    alone = results.baseline_records("near")[0]
    assert (alone["points"], alone["teleports"]) == (None, [])
    assert all(epoch["seconds"] > 0 for epoch in alone["history"])


def test_points_tell_what_the_tally_counts(teleported):
    """The share of conflicting steps can be had from the points, where none was thinned out."""
    results, _ = teleported
    for method in results.methods:
        for record in results.records(method).values():
            for epoch in record["history"]:
                cosines = [
                    cosine
                    for number, cosine in zip(record["points"]["epoch"], record["points"]["cosine"], strict=True)
                    if number == epoch["epoch"]
                ]
                assert epoch["conflicts"]["smallest"] == pytest.approx(sum(c < 0 for c in cosines) / len(cosines))


def test_teleports_change_the_training_of_the_seed_that_conflicts_only(teleported):
    results, _ = teleported
    plain, moved = results.records("ls"), results.records(NAME)
    first = moved[0]["teleports"][0]["step"]  # told of at the new point
    assert plain[0]["points"]["loss"][:first] == moved[0]["points"]["loss"][:first]
    assert plain[0]["final"] != moved[0]["final"]
    assert plain[1]["final"] == moved[1]["final"]


def test_accessors(teleported):
    results, _ = teleported
    assert results.teleporting() == (NAME,)
    assert (results.counterpart(NAME), results.counterpart("ls")) == ("ls", None)
    attempts = results.teleports(NAME)
    assert all(isinstance(report, TeleportReport) for report in attempts[0])
    assert [report.as_dict() for report in attempts[0]] == results.records(NAME)[0]["teleports"]
    assert attempts[1] == []
    assert results.teleports("ls") == {0: [], 1: []}
    assert set(results.points("ls")) == {0, 1}
    for seed, seconds in results.epoch_seconds(NAME, solo=False).items():
        own = [epoch["seconds"] for epoch in results.records(NAME)[seed]["history"]]
        assert seconds == pytest.approx(sum(own) / len(own))
    comparison, p = results.teleport_comparisons()[NAME]
    mine, without = results.delta_m(NAME), results.delta_m("ls")
    assert comparison.difference == pytest.approx(sum(mine[seed] - without[seed] for seed in (0, 1)) / 2)
    assert p == comparison.p  # one comparison needs no correction


def test_report_on_the_command_line(teleported, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    folder = shutil.copytree(teleported[1], tmp_path / "study")
    assert main(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if not line.startswith("Report:")]
    assert max(map(len, lines)) <= 80
    assert re.search(r"^ cost\(.*…\)\+ls .*\d ± \d", out, re.MULTILINE)  # long names break no numbers
    markdown, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    for picture in TELEPORT_PICTURES[:-1]:  # times are shown of solo runs only
        assert f"](pictures/{picture.name}.png)" in markdown
        assert picture.caption in markdown
        assert imread(folder / "pictures" / f"{picture.name}.png").std() > 0.01
    assert page.count("<img") == len(PICTURES) + len(TELEPORT_PICTURES) - 2
    assert "<h2>Teleports</h2>" in page


def test_no_clutter_where_nobody_teleports(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "study")
    markdown, page = write_report(Results(folder))
    assert "teleport" not in markdown.read_text().lower()
    assert "<h2>Teleports" not in page.read_text()
    assert not list((folder / "pictures").glob("teleport*"))
    assert teleport_table(Results(folder)) is None


@pytest.mark.usefixtures("one_picture")
def test_table_says_what_the_records_say(teleported):
    results, _ = teleported
    table = teleport_table(results)
    ((name, _, attempts, accepted, refused, size, sign, *_, share),) = table.rows
    reports = results.teleports(NAME)[0]
    moved = [report for report in reports if report.accepted]
    assert name == NAME
    assert attempts == f"{len(reports) / 2:.1f}"  # two seeds
    assert accepted.startswith(f"{len(moved)} (")
    assert refused == f"{len(reports) - len(moved)}: conflict worse {len(reports) - len(moved)}"
    changes = [change for report in moved for change in report.changes]
    assert size == f"{sum(map(abs, changes)) / len(changes):.1%}"
    assert sign == f"{sum(changes) / len(changes):+.1%}".replace("-", "−")
    total = sum(epoch["seconds"] for record in results.records(NAME).values() for epoch in record["history"])
    assert share == f"{sum(report.seconds for report in reports) / total:.1%}"
    lines = [line for line in write_report(results)[0].read_text().splitlines() if line.startswith("|")]
    own = [line for line in lines if line.count("|") == len(table.columns) + 1]
    assert [cell.strip() for cell in own[-1].strip("|").split("|")] == list(table.rows[0])
    assert len(own) == 3


@pytest.mark.usefixtures("one_template")
def test_a_study_that_was_cut_short_gives_the_same_bits(tiny, teleported, tmp_path, quiet):
    folder = shutil.copytree(teleported[1], tmp_path / "study")
    (cut,) = (path for path in (folder / "runs").glob("cost*") if read_json(path)["run"]["seed"] == 0)
    cut.write_text(cut.read_text()[:500])
    study = Study(tiny, f"ls,{NAME}", 2, folder=folder, jobs=1, gramian_every=1, console=quiet)
    assert [str(run) for run in study.missing()] == [f"{NAME} seed 0"]
    study.run()
    assert timeless_records(folder) == timeless_records(teleported[1])
    assert json.loads(cut.read_text())["teleports"]


def test_records_of_earlier_versions_can_still_be_read(teleported, tmp_path):
    folder = shutil.copytree(teleported[1], tmp_path / "study")
    for path in (folder / "runs").iterdir():
        record = read_json(path)
        del record["points"], record["teleports"]
        for epoch in record["history"]:
            del epoch["seconds"]
        write_json(path, record)
    results = Results(folder)
    assert results.points(NAME) == {}
    assert results.epoch_seconds(NAME) == {}
    assert results.teleports(NAME) == {0: [], 1: []}
    write_report(results)
    assert {path.stem for path in (folder / "pictures").iterdir()} & {p.name for p in TELEPORT_PICTURES} == {
        "teleport_conflicts"
    }


def test_numbers_that_were_not_finite(made_up):
    results = Results(made_up(methods=("ls", "cost+ls")))
    failed = [report for report in results.teleports("cost+ls")[0] if not report.losses_after]
    assert failed
    assert all(math.isnan(report.measure_after) for report in failed)
    (row,) = teleport_table(results).rows
    assert "losses changed 6, not finite 3" in row[4]  # 3 seeds of 9 attempts


def test_the_same_seed_gives_the_same_bits(tiny):
    def run(seed, text=f"{COST}+ls"):
        return timeless(train(tiny, Run(seed, method=parse_method(text)), epochs=2, gramian_every=0))

    first = run(0)
    assert first["teleports"]
    assert run(0) == first
    assert run(0, COST.replace("rank=2", "rank=2,seed=9") + "+ls")["teleports"] != first["teleports"]


def test_counterparts_by_label_and_by_options(made_up):
    folder = made_up(methods=("fairgrad:alpha=2", "cost(gamma=1)+fairgrad:alpha=2", "cost+ls"))
    results = Results(folder)
    assert results.counterpart("cost(gamma=1)+fairgrad:alpha=2") == "fairgrad:alpha=2"
    assert results.counterpart("cost+ls") is None
    assert set(results.teleport_comparisons()) == {"cost(gamma=1)+fairgrad:alpha=2"}


def test_counterpart_of_a_label_of_ones_own(made_up):
    """By name and options then: of two methods that teleport, one has a counterpart."""
    folder = made_up(methods=("ls", "mine", "other"), seeds=(0,))
    for path, options in (("1-seed0", {}), ("2-seed0", {"alpha": 2})):
        record = read_json(folder / "runs" / f"{path}.json")
        record["run"] |= {"name": "ls", "options": {**options, "teleport": "own"}}
        write_json(folder / "runs" / f"{path}.json", record)
    results = Results(folder)
    assert set(results.teleporting()) == {"mine", "other"}
    assert results.counterpart("mine") == "ls"
    assert results.counterpart("other") is None


def test_short_names_show_what_tells_methods_apart(made_up):
    texts = [f"cost(start=3,stop=9,gamma={gamma})+ls" for gamma in (0.1, 0.2)]
    results = Results(made_up(methods=("ls", *texts, "cost(start=3)+fairgrad"), seeds=(0,)))
    assert [results.short(name) for name in results.methods] == [
        "ls",
        "cost(…,gamma=0.1)+ls",
        "cost(…,gamma=0.2)+ls",
        "cost(start=3)+fairgrad",
    ]
    assert Results(made_up(methods=("cost+ls", *texts), seeds=(0,))).short(texts[0]) == texts[0]  # nothing is common to all
