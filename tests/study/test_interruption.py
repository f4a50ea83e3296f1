"""A study is killed in the middle, and what comes out in the end is the same to the last bit."""

import os
import signal
import subprocess
import time

import pytest
from tests.gates import Gate, command_line, said_in_the_end
from tests.study.timeless import timeless_records

from equipoise.cli import main

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals"),
    pytest.mark.usefixtures("one_template"),  # for the studies of this process; those that are killed have their own
]


# One attempt per run, and a short one.
TELEPORTING = (
    "cost(budget=None,stop=1,per_epoch=1,cooldown=1,probe_batches=1,held_out_batches=1,steps=1,samples=1,rank=2)+fairgrad"
)


def arguments(tiny_path, folder):
    """The study of a problem whose runs may be made to wait, on the command line."""
    options = ["--methods", f"ls,{TELEPORTING}", "--seeds", "2", "--jobs", "2", "--folder", str(folder)]
    return ["study", f"{tiny_path}:gated", *options]


@pytest.fixture
def start(tiny_path, tmp_path):
    """Starts a study as a user would, in a process of its own; and where its runs say which processes they are."""
    processes = tmp_path / "processes"
    processes.mkdir()
    gate = Gate(tmp_path / "gate")
    started = []

    def starts(folder, allowed):
        """Of its runs, as many as allowed go on; the others wait."""
        gate.allow(allowed)
        command = command_line(*arguments(tiny_path, folder))
        environment = gate.environment | {"TINY_PROCESSES": str(processes)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, **pipes, env=environment, start_new_session=True))
        return started[-1]

    yield starts, processes
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def records(folder):
    return sorted((folder / "runs").glob("*.json")) if (folder / "runs").exists() else []


def alive(processes):
    """Which of the processes that ever carried a run are still there."""
    left = []
    for path in processes.iterdir():
        try:
            with open(f"/proc/{path.name}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] != "Z":
                    left.append(path.name)
        except FileNotFoundError:
            pass
    return left


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at processes through /proc")
def test_killed_in_the_middle_and_started_again(start, tiny_path, tmp_path, capsys):
    starts, processes = start
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    assert main(arguments(tiny_path, undisturbed)) == 0
    assert len(records(undisturbed)) == 8
    assert any(record["teleports"] for record in timeless_records(undisturbed))

    process = starts(folder, 4)
    wait_for(lambda: len(records(folder)) == 4 and alive(processes))
    process.kill()
    process.communicate()
    wait_for(lambda: not alive(processes), 60)  # no orphans
    complete = {path: path.stat().st_mtime_ns for path in records(folder)}
    assert len(complete) == 4

    # What a writer that died may leave, and what a disk that was full may leave.
    missing = next(path.name for path in records(undisturbed) if not (folder / "runs" / path.name).exists())
    whole = (undisturbed / "runs" / missing).read_text()
    (folder / "runs" / f"{missing}.99999.part").write_text(whole)
    (folder / "runs" / missing).write_text(whole[: len(whole) // 2])

    capsys.readouterr()
    assert main(arguments(tiny_path, folder)) == 0
    assert "4 to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in complete} == complete
    assert not list(folder.rglob("*.part"))
    assert timeless_records(folder) == timeless_records(undisturbed)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at processes through /proc")
def test_interrupted_from_the_keyboard(start, tmp_path):
    starts, processes = start
    folder = tmp_path / "study"
    process = starts(folder, 1)
    wait_for(lambda: len(records(folder)) == 1 and alive(processes))
    os.killpg(process.pid, signal.SIGINT)
    output = said_in_the_end(process)
    assert process.returncode == 130, output
    assert "The same command continues from here." in output
    assert "Traceback" not in output
    assert not alive(processes)
    assert not (folder / ".work").exists()
