"""A sweep is killed, or one of two processes that work on it, and nothing is lost and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from equipoise.cli import main
from equipoise.sweep import Outcome
from equipoise.sweep.folder import SweepFolder
from equipoise.sweep.trials import load_trials
from tests.study.timeless import timeless

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


def arguments(tug_path, folder, budget, jobs=1):
    options = ["--budget", str(budget), "--sampler", "random", "--seeds", "1", "--confirm", "2", "--jobs", str(jobs)]
    return ["sweep", f"{tug_path}:slow", *options, "--folder", str(folder)]


@pytest.fixture
def start(tug_path):
    started = []

    def starts(folder, budget):
        command = [sys.executable, "-m", "equipoise.cli", *arguments(tug_path, folder, budget)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        )
        return started[-1]

    yield starts
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def trials(folder):
    return load_trials(SweepFolder(folder / "sweeps" / "ls"))


def running(folder):
    return [trial for trial in trials(folder) if trial.state.name == "RUNNING" and "owner" in trial.user_attrs]


def records(folder):
    runs = sorted((folder / "sweeps" / "ls" / "trials" / "runs").glob("*.json"))
    return [timeless(json.loads(path.read_text())) for path in runs]


def test_killed_in_the_middle_and_started_again(start, tug_path, tmp_path):
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    assert main(arguments(tug_path, undisturbed, 6)) == 0
    process = start(folder, 6)
    wait_for(lambda: len(records(folder)) >= 2 and running(folder))
    process.kill()
    process.communicate()
    (lost,) = running(folder)
    done = {path: path.stat().st_mtime_ns for path in folder.rglob("*-seed*.json")}

    assert main(arguments(tug_path, folder, 6)) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert [trial.state.name for trial in trials(folder)] == ["COMPLETE"] * 6
    (again,) = [trial for trial in trials(folder) if "again" in trial.user_attrs]
    assert again.user_attrs["again"] == lost.number
    assert again.params == lost.params
    # The same trials as without the interruption, with the same results to the last bit, and the same ones confirmed.
    assert [trial.params for trial in trials(folder)] == [trial.params for trial in trials(undisturbed)]
    assert records(folder) == records(undisturbed)
    one, other = (Outcome(own / "sweeps" / "ls") for own in (folder, undisturbed))
    assert set(one.confirmed) == set(other.confirmed)
    assert not list((folder / "sweeps" / "ls" / "owners").iterdir())
    assert not list(folder.rglob(".work*"))


def test_two_processes_on_one_sweep_of_which_one_is_killed(start, tmp_path):
    folder = tmp_path / "study"
    one, other = start(folder, 10), start(folder, 10)
    wait_for(lambda: len({trial.user_attrs["owner"] for trial in running(folder)}) == 2)
    one.kill()
    one.communicate()
    output, _ = other.communicate(timeout=120)
    assert other.returncode == 0, output
    assert [trial.state.name for trial in trials(folder)] == ["COMPLETE"] * 10
    assert sum("again" in trial.user_attrs for trial in trials(folder)) <= 1
    assert len(records(folder)) == 10


def test_two_processes_share_a_budget(start, tmp_path):
    folder = tmp_path / "study"
    processes = [start(folder, 8) for _ in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert "Pareto" not in output  # off a terminal: tables and the place of the report
        assert "report.html" in output
    owners = [trial.user_attrs["owner"] for trial in trials(folder)]
    assert len(owners) == 8
    assert len(set(owners)) == 2
    assert {trial.state.name for trial in trials(folder)} == {"COMPLETE"}


def test_interrupted_from_the_keyboard(start, tmp_path):
    folder = tmp_path / "study"
    process = start(folder, 20)
    wait_for(lambda: len(records(folder)) >= 1 and running(folder))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "The same command goes on from here." in output
    assert "Traceback" not in output
