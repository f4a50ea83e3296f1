"""A sweep is killed, or one of two processes that work on it, and nothing is lost and nothing is done twice."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from equipoise.cli import main
from equipoise.sweep import Outcome
from equipoise.sweep.folder import SweepFolder
from equipoise.sweep.trials import load_trials
from tests.gates import Gate, command_line, said_in_the_end
from tests.study.timeless import timeless

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals"),
    pytest.mark.usefixtures("one_template"),  # for the sweeps of this process; those that are killed have their own
]

BASELINES = 2


def arguments(tug_path, folder, budget, jobs=1):
    options = ["--budget", str(budget), "--sampler", "random", "--seeds", "1", "--confirm", "2", "--jobs", str(jobs)]
    return ["sweep", f"{tug_path}:gated", *options, "--folder", str(folder)]


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "gate")


@pytest.fixture
def allow(gate):
    """Says how many trials of the sweeps that are started may run; all others wait."""

    def allows(trials):
        gate.allow(BASELINES + trials)

    allows(0)
    return allows


@pytest.fixture
def start(tug_path, gate, allow):
    started = []

    def starts(folder, budget):
        command = command_line(*arguments(tug_path, folder, budget))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, **pipes, env=gate.environment, start_new_session=True))
        return started[-1]

    yield starts
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def trials(folder):
    return load_trials(SweepFolder(folder / "sweeps" / "ls"))


def running(folder):
    return [trial for trial in trials(folder) if trial.state.name == "RUNNING" and "owner" in trial.user_attrs]


def records(folder):
    runs = sorted((folder / "sweeps" / "ls" / "trials" / "runs").glob("*.json"))
    return [timeless(json.loads(path.read_text())) for path in runs]


def test_killed_in_the_middle_and_started_again(start, allow, tug_path, tmp_path):
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    assert main(arguments(tug_path, undisturbed, 6)) == 0
    allow(2)
    process = start(folder, 6)
    wait_for(lambda: len(records(folder)) == 2 and running(folder))
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


def test_two_processes_on_one_sweep_of_which_one_is_killed(start, tug_path, tmp_path):
    folder = tmp_path / "study"
    other = start(folder, 5)
    wait_for(lambda: running(folder))
    (lost,) = running(folder)

    def kill():
        wait_for(lambda: len(records(folder)) >= 2)
        other.kill()
        other.communicate()

    with ThreadPoolExecutor() as meanwhile:
        killed = meanwhile.submit(kill)
        assert main(arguments(tug_path, folder, 5)) == 0
        killed.result()
    assert [trial.state.name for trial in trials(folder)] == ["COMPLETE"] * 5
    assert [trial.user_attrs["again"] for trial in trials(folder) if "again" in trial.user_attrs] == [lost.number]
    assert len(records(folder)) == 5


def test_two_processes_share_a_budget(start, allow, tug_path, tmp_path):
    folder = tmp_path / "study"
    other = start(folder, 5)
    wait_for(lambda: running(folder))

    def go_on():
        wait_for(lambda: len(records(folder)) >= 2)
        allow(99)

    with ThreadPoolExecutor() as meanwhile:
        opened = meanwhile.submit(go_on)
        assert main(arguments(tug_path, folder, 5)) == 0
        opened.result()
    output, _ = other.communicate(timeout=200)
    assert other.returncode == 0, output
    assert "Pareto" not in output  # off a terminal: tables and the place of the report
    assert "report.html" in output
    owners = [trial.user_attrs["owner"] for trial in trials(folder)]
    assert len(owners) == 5
    assert len(set(owners)) == 2
    assert {trial.state.name for trial in trials(folder)} == {"COMPLETE"}


def test_interrupted_from_the_keyboard(start, allow, tmp_path):
    folder = tmp_path / "study"
    allow(1)
    process = start(folder, 20)
    wait_for(lambda: len(records(folder)) == 1 and running(folder))
    os.killpg(process.pid, signal.SIGINT)
    output = said_in_the_end(process)
    assert process.returncode == 130, output
    assert "The same command continues from here." in output
    assert "Traceback" not in output
