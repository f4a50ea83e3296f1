import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from tests.study.timeless import timeless_records

from equipoise.errors import EquipoiseError, InputError
from equipoise.progress import progress
from equipoise.study import Results, Study, find_problem, parse_method
from equipoise.study.folder import Folder
from equipoise.study.plan import Run
from equipoise.study.processes.pool import execute
from equipoise.study.records import describe


def test_all_runs_are_there(finished):
    results, folder = finished
    names = {path.stem for path in (folder / "runs").iterdir()}
    assert names == {f"{name}-seed{seed}" for name in ("ls", "fairgrad", "stl~near", "stl~far") for seed in (0, 1)}
    assert results.methods == ("ls", "fairgrad")
    assert results.seeds == (0, 1)
    assert not results.failures
    # Another test of this process may have had the report written already.
    report = {"report.md", "report.html", "pictures"}
    assert {entry.name for entry in folder.iterdir()} - report == {"study.json", "runs", ".lock"}


@pytest.mark.usefixtures("one_template")
def test_a_second_start_runs_only_what_is_missing(tiny, finished, tmp_path, quiet):
    _, before = finished
    folder = shutil.copytree(before, tmp_path / "study")

    def study(methods, seeds, **options):
        return Study(tiny, methods, seeds, folder=folder, jobs=2, console=quiet, **{"gramian_every": 2} | options)

    times = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert study("ls", 2).missing() == ()
    assert study("ls", 2).run().methods == ("ls", "fairgrad")  # what the folder holds is reported, whatever was asked for
    assert [str(run) for run in study("ls,si", "1-2").missing()] == [
        "stl:near seed 2",
        "stl:far seed 2",
        "si seed 1",
        "ls seed 2",
        "si seed 2",
    ]
    results = study("si", "1,").run()
    assert results.methods == ("ls", "fairgrad", "si")
    assert list(results.records("si")) == [1]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(InputError, match="epochs 3 there, 4 now"):
        study("ls", 1, epochs=4).run()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_ways_of_starting_give_the_same_bits(tiny, finished, tmp_path, quiet, start):
    if start == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    _, before = finished
    folder = Folder(tmp_path)
    run = Run(1, method=parse_method("fairgrad"))
    with folder.locked(), progress(1, tiny.epochs, quiet) as shown:
        failed = execute(tiny, [run], folder, shown, epochs=tiny.epochs, gramian_every=2, jobs=1, start=start)
    assert failed == []
    assert shown.share == 1
    assert timeless_records(tmp_path) == [record for record in timeless_records(before) if record["run"] == describe(run)]


@pytest.mark.usefixtures("one_template")
def test_a_run_that_fails_is_kept_and_the_others_go_on(tiny_path, tmp_path, quiet):
    problem = find_problem(f"{tiny_path}:failing")
    results = Study(problem, "ls", 3, folder=tmp_path, jobs=2, console=quiet).run()
    assert set(results.failures) == {f"{name}-seed{seed}" for name in ("ls", "stl~near", "stl~far") for seed in (1, 2)}
    raised = results.failures["ls-seed1"].read_text()
    assert raised.startswith("seed 1\nTraceback")
    assert raised.endswith("RuntimeError: the disk with the data is gone\n")
    killed = results.failures["ls-seed2"].read_text()
    assert killed == "seed 2\n\nThe process of this run was killed by signal 9 (out of memory?).\n"
    assert list(results.records("ls")) == [0]
    assert (tmp_path / "logs" / "ls-seed0.txt").read_text() == "seed 0\n"
    # Put right, the same folder runs what failed and forgets the failure.
    healthy = find_problem(f"{tiny_path}:problem")
    results = Study(healthy, "ls", 2, folder=tmp_path, jobs=2, console=quiet).run()
    assert set(results.failures) == {"ls-seed2", "stl~near-seed2", "stl~far-seed2"}
    assert list(results.records("ls")) == [0, 1]


SCRIPT = """
import sys
sys.path.insert(0, {problems!r})
import tiny  # a module beside the script, as users have them
from equipoise.study import Study

class Mine(__import__("equipoise").LossBalancer):
    def weights(self, losses):
        return losses.new_ones(len(losses)) * FACTOR

FACTOR = 3.0
results = Study(tiny.tiny(), ["ls", ("mine", Mine)], 1, folder={folder!r}, jobs=2).run()
print("methods", *results.methods, "failures", len(results.failures))
"""


def test_from_a_script_without_a_guard(tiny_path, tmp_path):
    """Children of multiprocessing would import this script again, and start the study anew."""
    script = tmp_path / "script.py"
    folder = tmp_path / "study"
    script.write_text(SCRIPT.format(problems=str(tiny_path.parent), folder=str(folder)))
    # The problem beside the script imports a helper of the tests, which a script elsewhere has to be told of.
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "methods ls mine failures 0\n"
    # Off a terminal: one line per run, the last of which has no time left.
    lines = done.stderr.splitlines()
    assert "4 runs of 3 epochs; 4 to do, 2 at a time" in lines[0]
    assert [line.startswith(f"[{number}/4] ") for number, line in enumerate(lines[1:5], 1)] == [True] * 4
    assert lines[4].endswith(": done")


@pytest.mark.usefixtures("one_template")
def test_from_an_interactive_session(tiny_path, tmp_path, monkeypatch, capsys):
    """As in a notebook: no main file at all, and a main module that no other process can import."""
    session = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", session)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "tiny", None)  # what is imported now goes again
    del sys.modules["tiny"]
    exec(SCRIPT.format(problems=str(tiny_path.parent), folder=str(tmp_path / "study")), vars(session))
    assert capsys.readouterr().out == "methods ls mine failures 0\n"


def test_bad_input(tiny, tmp_path):
    with pytest.raises(InputError, match="jobs is 0"):
        Study(tiny, "ls", folder=tmp_path, jobs=0)
    with pytest.raises(InputError, match="epochs is 0"):
        Study(tiny, "ls", folder=tmp_path, epochs=0)
    with pytest.raises(InputError, match="gramian_every is -1"):
        Study(tiny, "ls", folder=tmp_path, gramian_every=-1)
    with pytest.raises(InputError, match=r'no problem "digts".* "digits"'):
        Study("digts", "ls")
    with pytest.raises(InputError, match='start is "thread"'):
        Study(tiny, "ls", 1, folder=tmp_path, start="thread").run()


def test_processes_that_cannot_be_started(tiny, tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EquipoiseError, match="the process that starts the runs ended"):
        Study(tiny, "ls", 1, folder=tmp_path, start="fork", console=quiet).run()


def test_results_are_read_from_the_folder_alone(finished):
    results, folder = finished
    again = Results(folder)
    assert again.methods == results.methods
    assert again.delta_m("ls") == results.delta_m("ls")
