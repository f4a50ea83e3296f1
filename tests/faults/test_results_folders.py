"""Folders of results from strangers: a report says in one line per file what does not count, and goes on."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import sys
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.errors import InputError
from equipoise.store import RunStore, read_json, replacing, write_json
from equipoise.study import Results, parse_methods
from equipoise.study.folder import Folder
from equipoise.study.processes import worker
from equipoise.study.report import print_results, write_report
from tests.study.conftest import made_up, one_picture  # noqa: F401

RECORD = "0-seed0.json"  # of ls
DEEP = "[" * 10_000 + "]" * 10_000


def changed(*path, to):
    """The record with one entry replaced."""

    def change(record):
        at = record
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return record

    return change


def teleport(**changes):
    own = {
        "step": 1,
        "epoch": 0,
        "trigger": "dominated",
        "tasks": ["near", "far"],
        "accepted": True,
        "reason": "",
        **dict.fromkeys(("sigma", "distance", "measure_before", "measure_after", "seconds"), 0.1),
        **{f"{what}_{when}": [0.1, 0.2] for what in ("cosines", "norms", "losses") for when in ("before", "after")},
        "invariance": [],
        "reward": [],
    }
    return changed("teleports", to=[own | changes])


DAMAGE = {
    "seed a text": (changed("run", "seed", to="0"), "run.seed is a text, not a whole number"),
    "seed a truth value": (changed("run", "seed", to=True), "run.seed is a truth value"),
    "seed below 0": (changed("run", "seed", to=-1), "run.seed is below 0"),
    "seed beyond all bounds": (changed("run", "seed", to=10**400), "run.seed is a number beyond all bounds"),
    "task unknown": (changed("run", "task", to="nowhere"), 'the study has no task "nowhere"'),
    "task a list": (changed("run", "task", to=["near"]), "run.task is a list, not a text"),
    "method unknown": (changed("run", "method", to="mine"), 'the study has no method "mine"'),
    "method a number": (changed("run", "method", to=3), "run.method is a number, not a text"),
    "options a list": (changed("run", "options", to=[1]), "run.options is a list, not a mapping"),
    "history a mapping": (changed("history", to={}), "history is a mapping, not a list"),
    "epoch a number": (changed("history", 0, to=3), "history[0] is a number, not a mapping"),
    "loss a text": (changed("history", 2, "losses", "near", to="low"), "history[2].losses.near is a text, not a number"),
    "losses a list": (changed("history", 0, "losses", to=[1.0]), "history[0].losses is a list"),
    "weights a number": (changed("history", 0, "weights", to=1.0), "history[0].weights is a number"),
    "conflicts a text": (changed("history", 0, "conflicts", to="many"), "history[0].conflicts is a text"),
    "share a list": (changed("history", 0, "conflicts", "any", to=[1]), "history[0].conflicts.any is a list"),
    "cosines of three": (changed("history", -1, "conflicts", "cosines", to=[[1, 0, 0]] * 3), "not those of 2 tasks"),
    "cosines ragged": (changed("history", -1, "conflicts", "cosines", to=[[1], [0, 1]]), "not those of 2 tasks"),
    "metric a text": (changed("final", "test", "near", to="10"), "final.test.near is a text"),
    "metric a huge number": (changed("final", "test", "near", to=10**400), "final.test.near is a number beyond all bounds"),
    "no test split": (changed("final", "test", to=None), "final.test is null, not a mapping"),
    "seconds a text": (changed("seconds_a_step", "median", to="fast"), "seconds_a_step.median is a text"),
    "memory a list": (changed("memory_mb", "training", to=[]), "memory_mb.training is a list"),
    "wall a text": (changed("wall_seconds", to="1"), "wall_seconds is a text"),
    "versions numbers": (changed("versions", "torch", to=2), "versions.torch is a number"),
    "points uneven": (changed("points", "loss", to=[1.0]), "points has lists of different lengths"),
    "points a text": (changed("points", to="none"), "points is a text"),
    "teleports a number": (changed("teleports", to=3), "teleports is a number"),
    "teleport unlike its tasks": (teleport(norms_after=[1.0]), "teleports[0].norms_after has 1 entries, not 2"),
    "teleport of unknown tasks": (teleport(tasks=["near", "x"]), 'the study has no task "x"'),
    "teleport of texts": (teleport(sigma="much"), "teleports[0].sigma is a text"),
    "epochs another": (changed("epochs", to=3), "history has 5 entries, not 3"),
    "half a character": (changed("run", "name", to="\ud800"), "run.name holds halves of characters"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_record_costs_itself_and_is_named(made_up, damage) -> None:  # noqa: F811
    change, said = DAMAGE[damage]
    folder = made_up(seeds=(0, 1))
    path = folder / "runs" / RECORD
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    results = Results(folder)
    assert list(results.unread) == [path]
    assert said in results.unread[path]
    assert list(results.records("ls")) == [1]
    assert list(results.records("fairgrad")) == [0, 1]
    console = Console(record=True, width=120, file=io.StringIO())
    print_results(results, console)
    assert f"does not count: runs/{RECORD}: " in console.export_text()


@pytest.mark.usefixtures("one_picture")
def test_the_report_names_the_files_that_do_not_count(made_up) -> None:  # noqa: F811
    folder = made_up(seeds=(0, 1))
    (folder / "runs" / RECORD).write_text(DEEP)
    for path in write_report(Results(folder)):
        assert f"runs/{RECORD}" in path.read_text()
        assert "it is nested more than 64 levels deep" in path.read_text()


FILES = {
    "nested": lambda path: path.write_text(DEEP),
    "nested a little": lambda path: path.write_text("[" * 200 + "]" * 200),
    "empty": lambda path: path.write_text(""),
    "not JSON": lambda path: path.write_text("{'a': 1}"),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "a loop": lambda path: path.symlink_to(path),
    "nowhere": lambda path: path.symlink_to(path.parent / "nothing"),
    "huge number": lambda path: path.write_text("1" * 5000),
}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_no_record_costs_itself(made_up, tiny_free, file) -> None:  # noqa: F811
    folder = made_up(seeds=(0, 1))
    path = folder / "runs" / RECORD
    path.unlink()
    FILES[file](path)
    results = Results(folder)
    assert list(results.unread) == [path]
    assert "\n" not in results.unread[path]
    assert list(results.records("ls")) == [1]
    assert Folder(folder).find("0-seed0") is None  # and the run would be done again


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
@pytest.mark.parametrize("file", FILES)
def test_a_folder_whose_settings_cannot_be_read_is_none(made_up, file) -> None:  # noqa: F811
    folder = made_up()
    (folder / "study.json").unlink()
    FILES[file](folder / "study.json")
    with pytest.raises(InputError, match=r"it holds no readable study\.json") as caught:
        Results(folder)
    assert "\n" not in str(caught.value)


SETTINGS = {
    "seeds a text": (("seeds",), "012", r"seeds is a text, not a list"),
    "seeds texts": (("seeds",), ["0"], r"seeds\[0\] is a text"),
    "epochs a text": (("epochs",), "5", "epochs is a text"),
    "methods a list": (("methods",), ["ls"], "methods is a list"),
    "method a text": (("methods", "ls"), "ls", "methods.ls is a text"),
    "options a list": (("methods", "ls", "options"), [], "methods.ls.options is a list"),
    "problem a text": (("problem",), "digits", "problem is a text"),
    "no tasks": (("problem", "tasks"), [], "problem has no tasks"),
    "a task twice": (("problem", "tasks"), ["near", "near"], "problem has a task twice"),
    "tasks numbers": (("problem", "tasks"), [1, 2], r"problem.tasks\[0\] is a number"),
    "no metrics": (("problem", "metrics"), [], "problem has no metrics"),
    "metric of no task": (("problem", "metrics", 0, "task"), "x", "a metric of no task"),
    "direction a text": (("problem", "metrics", 0, "higher_is_better"), "yes", "higher_is_better is a text"),
    "label a list": (("problem", "metrics", 0, "label"), [], r"metrics\[0\].label is a list"),
    "options a number": (("problem", "options"), 3, "problem.options is a number"),
    "reported a list": (("problem", "reported"), [3], "problem.reported is a list"),
}


@pytest.mark.parametrize("damage", SETTINGS)
def test_wrong_settings_are_refused_in_one_line(made_up, tiny_free, damage) -> None:  # noqa: F811
    path, value, said = SETTINGS[damage]
    folder = made_up()
    known = read_json(folder / "study.json")
    write_json(folder / "study.json", changed(*path, to=value)(known))
    before = (folder / "study.json").read_bytes()
    with pytest.raises(InputError, match=said):
        Results(folder)
    with pytest.raises(InputError, match=said):
        Folder(folder).claim_for(tiny_free, parse_methods("ls"), [0], {"epochs": 5})
    assert (folder / "study.json").read_bytes() == before


@pytest.fixture
def tiny_free():
    from equipoise.study import find_problem

    return find_problem("digits")


def test_a_copy_under_another_name_counts_once(made_up) -> None:  # noqa: F811
    folder = made_up(seeds=(0, 1))
    own = folder / "runs" / "ls-seed0.json"
    (folder / "runs" / RECORD).rename(own)
    other = json.loads(own.read_text())
    other["final"]["test"]["near"] = 77.0
    (folder / "runs" / "aaa.json").write_text(json.dumps(other))
    results = Results(folder)
    assert 77.0 not in results.values("ls", results.metrics[0]).values()
    assert results.unread == {folder / "runs" / "aaa.json": "it is the run of ls-seed0.json once more"}


def test_numbers_that_other_writers_have_for_infinity_are_no_obstacle(made_up) -> None:  # noqa: F811
    folder = made_up(seeds=(0, 1))
    path = folder / "runs" / RECORD
    record = json.loads(path.read_text())
    for epoch in record["history"]:
        epoch["losses"] = {"near": math.inf, "far": math.nan}
    record["history"][0]["losses"]["near"] = -math.inf
    path.write_text(json.dumps(record))
    results = Results(folder)
    assert not results.unread
    write_report(results)


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
@pytest.mark.parametrize("part", ["pictures", "runs", "failed", "logs", ".work", ".lock"])
def test_nothing_is_written_through_a_link(made_up, tmp_path_factory, part) -> None:  # noqa: F811
    outside = tmp_path_factory.mktemp("outside")
    mine = outside / "mine"
    mine.write_text("mine")
    folder = made_up()
    if (folder / part).exists():
        (folder / part).rename(outside / "there")
        (folder / part).symlink_to(outside / "there")
    else:
        (folder / part).symlink_to(mine if part == ".lock" else outside)
    before = sorted(path.name for path in outside.rglob("*"))
    with pytest.raises(InputError, match="is a link, and nothing is written through it"), Folder(folder).locked():
        pytest.fail("entered")
    if part == "pictures":
        with pytest.raises(InputError, match="is a link"):
            write_report(Results(folder))
    assert sorted(path.name for path in outside.rglob("*")) == before
    assert mine.read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
@pytest.mark.usefixtures("one_picture")
def test_a_folder_that_is_a_link_itself_is_the_users_choice(made_up, tmp_path_factory) -> None:  # noqa: F811
    link = tmp_path_factory.mktemp("links") / "results"
    link.symlink_to(made_up())
    with Folder(link).locked():
        write_report(Results(link))


class Run:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.skipif(sys.platform == "win32", reason="owners and links of POSIX")
@pytest.mark.parametrize("how", ["others may write", "a link", "of somebody else"])
def test_nothing_is_unpickled_that_others_may_have_written(tmp_path, monkeypatch, capsys, how) -> None:
    payload, trace = tmp_path / "run.pickle", tmp_path / "trace"
    payload.write_bytes(pickle.dumps(([], {}, pickle.dumps(Run(trace)))))
    payload.chmod(0o666 if how == "others may write" else 0o600)
    if how == "a link":
        (tmp_path / "link").symlink_to(payload)
        payload = tmp_path / "link"
    if how == "of somebody else":
        monkeypatch.setattr(os, "getuid", lambda: 12345678)
    assert worker.perform(payload, 1) == 1
    assert not trace.exists()
    assert "InputError" in capsys.readouterr().err or how == "a link"


def test_no_pickle_lies_in_a_folder_of_results(tmp_path, monkeypatch) -> None:
    from equipoise.study import find_problem
    from equipoise.study.plan import Run as StudyRun
    from equipoise.study.processes.pool import Pool

    monkeypatch.setattr("equipoise.study.processes.pool.launcher", lambda *_: Silent())
    folder = Folder(tmp_path / "study")
    with folder.locked(), Pool(find_problem("digits"), folder, epochs=1, gramian_every=0) as pool:
        pool.start(StudyRun(0, method=parse_methods("ls")[0]))
        (payload,) = Silent.payloads
        assert payload.exists()
        assert folder.path not in payload.parents
        assert payload.parent.stat().st_mode & 0o077 == 0
        assert payload.stat().st_mode & 0o077 == 0
        assert not list(folder.path.rglob("*.pickle"))
    assert not payload.exists()


class Silent:
    payloads: list[Path] = []  # noqa: RUF012

    def start(self, key, payload, log) -> None:
        self.payloads.append(payload)

    def close(self) -> None:
        pass


# -- files that somebody is writing


def test_entering_a_folder_leaves_what_somebody_is_writing(tmp_path) -> None:
    store = RunStore(tmp_path)
    with replacing(tmp_path / "runs" / "a.json") as part:
        part.write_text("half")
        with store.locked():
            assert part.exists()
        part.write_text("{}")
    assert store.find("a") == {}


def test_entering_a_folder_clears_what_the_dead_left(tmp_path) -> None:
    import subprocess

    code = (
        "import os, sys; from pathlib import Path; from equipoise.store import replacing\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "runs" / "a.json")], check=True)
    (left,) = (tmp_path / "runs").iterdir()
    with RunStore(tmp_path).locked():
        assert not left.exists()


def test_what_another_machine_is_writing_is_left_for_a_day(tmp_path) -> None:
    part = tmp_path / "a.json.1.2.elsewhere.part"
    part.write_text("half")
    with RunStore(tmp_path).locked():
        assert part.exists()
    os.utime(part, (0, 0))
    with RunStore(tmp_path).locked():
        assert not part.exists()
