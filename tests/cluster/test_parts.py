"""A study in parts, as the tasks of an array job carry it out: several processes in one folder."""

from __future__ import annotations

import io
import json
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.cli import main
from equipoise.errors import InputError
from equipoise.study import Study, find_problem
from equipoise.study.folder import Folder
from equipoise.study.methods import parse_methods
from equipoise.study.plan import dealt, parse_part, plan
from tests.gates import Gate, command_line, said_in_the_end
from tests.study.timeless import timeless_records

TINY = Path(__file__).parents[1] / "study" / "problems" / "tiny.py"
QUIET = Console(quiet=True)


@pytest.mark.parametrize("parts", [1, 3, 4, 40])
def test_every_run_is_in_one_part_and_parts_are_alike(parts: int) -> None:
    runs = plan(["a", "b"], parse_methods("ls,si,uw"), range(4))
    shares = [dealt(runs, (number, parts)) for number in range(1, parts + 1)]
    assert sorted(run.key for share in shares for run in share) == sorted(run.key for run in runs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0] == dealt(runs[::-1], (1, parts))[::-1]  # whatever the order they come in


def test_no_part_has_one_method_alone() -> None:
    runs = plan(["a", "b"], parse_methods("ls,si,uw,rlw"), range(8))
    assert all(len({run.label for run in dealt(runs, (number, 6))}) > 1 for number in range(1, 7))


@pytest.mark.parametrize("part", ["0/4", "5/4", "1", "1/0", "-1/4", "a/b", "1/4/4"])
def test_a_part_that_there_is_not_is_refused(part: str) -> None:
    with pytest.raises(InputError, match="parts count from 1"):
        parse_part(part)


def test_two_processes_on_one_folder_give_the_records_of_one(tmp_path: Path) -> None:
    """Both are at work at the same time: the gate opens when runs of both have arrived."""
    gate = Gate(tmp_path / "gate")
    arguments = ["study", f"{TINY}:gated", "--methods", "ls,fairgrad", "--seeds", "1", "--jobs", "1"]
    there = [*arguments, "--folder", str(tmp_path / "there")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": gate.environment}
    parts = [subprocess.Popen(command_line(*there, "--part", f"{number}/2"), **pipes) for number in (1, 2)]  # type: ignore[call-overload]
    try:
        end = time.monotonic() + 200
        while len(list(gate.folder.glob("arrived-*"))) < 2:
            assert all(part.poll() is None for part in parts), [part.communicate()[0] for part in parts]
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)
        for part, said in (("1/2", "part 1-of-2 of this study is running"), (None, "part 1-of-2 of a study is running")):
            other = Study(find_problem(f"{TINY}:gated"), "ls,fairgrad", 1, folder=tmp_path / "there", part=part, console=QUIET)
            with pytest.raises(InputError, match=said):
                other.run()
        gate.allow(1000)
        said = [said_in_the_end(part, 200) for part in parts]
    finally:
        for part in parts:
            part.kill()
    assert [part.returncode for part in parts] == [0, 0], said
    assert any("Report:" in text for text in said), said  # of the one that was the last
    assert all("part " in text for text in said)
    alone = Study(find_problem(f"{TINY}:problem"), "ls,fairgrad", 1, folder=tmp_path / "here", jobs=2, console=QUIET).run()
    assert not alone.failures
    assert timeless_records(tmp_path / "there") == timeless_records(tmp_path / "here")
    assert not list((tmp_path / "there").glob(".work*"))


def test_parts_and_a_study_of_everything_keep_each_other_out(tmp_path: Path) -> None:
    first, second = (Folder(tmp_path, (number, 2)) for number in (1, 2))
    with Folder(tmp_path).locked(), pytest.raises(InputError, match="not in parts is running"), first.locked():
        pass
    with first.locked(), second.locked():
        assert first.work != second.work
        with pytest.raises(InputError, match="part 1-of-2 of this study"), Folder(tmp_path, (1, 2)).locked():
            pass
        waited: list[None] = []

        def waiting() -> None:
            waited.append(None)
            if len(waited) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), Folder(tmp_path).locked(waiting):  # a sweep waits for parts
            pass
    with Folder(tmp_path).locked():
        pass


def test_a_part_cannot_choose_and_leaves_out_what_nobody_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = find_problem(f"{TINY}:problem")
    monkeypatch.setattr(Study, "_execute", lambda study, jobs, missing: None)
    console = Console(file=io.StringIO())
    study = Study(problem, "ls", 1, folder=tmp_path / "default", part="1/2", tuned_weights=None, console=console)
    study.run()
    assert "no tuned weights: they are chosen from runs of all parts" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not study.tuning.chooses
    assert len((*study.missing(), *study.left_to_others())) == 3
    assert Study(problem, "ls", 1, folder=tmp_path / "default", tuned_weights=None).tuning.chooses
    for asked in ({"lr": "1e-3,1e-2"}, {"tuned_weights": 4}):
        with pytest.raises(InputError, match="chosen from runs of all parts"):
            Study(problem, "ls", 1, folder=tmp_path, part="1/2", **asked)  # type: ignore[arg-type]
    assert len(Study(problem, "ls", 1, folder=tmp_path, part="1/2", lr=1e-3).missing()) == 2


def test_a_part_ends_with_1_if_a_run_of_its_own_failed_and_not_for_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["study", f"{TINY}:problem", "--methods", "ls", "--seeds", "1", "--part", "1/2", "--folder", str(tmp_path)]
    monkeypatch.setattr(Study, "_execute", lambda study, jobs, missing: None)  # all of them fail
    assert main(arguments) == 1
    assert "1 run is left to other parts" in capsys.readouterr().err
    monkeypatch.setattr(Study, "missing", lambda study: ())
    assert main(arguments) == 0


def test_a_part_goes_on_where_it_was_killed_and_adds_to_what_the_folder_remembers(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for part, methods in (("1/2", "ls"), ("2/2", "si")):
        study = Study(find_problem(f"{TINY}:problem"), methods, 1, folder=folder, part=part, console=QUIET)
        with study.folder.locked(), study.folder.turn():
            study.folder.claim_for(study.problem, study.methods, study.seeds, {"epochs": 3, "gramian_every": 10})
        assert {run.key for run in (*study.missing(), *study.left_to_others())} == {run.key for run in study._runs()}
    assert set(json.loads((folder / "study.json").read_text())["methods"]) == {"ls", "si"}
