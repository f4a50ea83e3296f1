"""Runs of a study that wait until a test lets them on, so that no test has to guess how long anything takes.

A test names a folder in the environment variable ``GATE`` of the processes it starts. Runs take numbers there, in the order in
which they come, and wait unless their number is below the one in the folder's file ``allowed``.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Gate:
    """The test's side.

    Args:
        folder: to be named in ``GATE``; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        # The runs find this file through the path of the process that starts them.
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        self.environment = os.environ | {"GATE": str(folder), "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1"}
        self.allow(0)

    def allow(self, runs: int) -> None:
        """Lets as many runs on in all."""
        (self.folder / "new").write_text(str(runs))
        (self.folder / "new").replace(self.folder / "allowed")


def command_line(*arguments: str) -> list[str]:
    """The library's command, which hears Ctrl-C even where these tests were started by something that does not."""
    hearing = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return [sys.executable, "-c", f"{hearing}; runpy.run_module('equipoise.cli', run_name='__main__')", *arguments]


def said_in_the_end(process: subprocess.Popen[str], seconds: float = 100) -> str:
    """Waits for the end of a process and returns its output; of one that does not end, with what its threads are at."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise AssertionError(f"did not end within {seconds} s: {process.communicate()[0]}") from None


_place: list[int] = []


def wait_at_the_gate() -> None:
    """The run's side, where a gate is named."""
    folder = Path(os.environ["GATE"])
    if not _place:
        _place.append(_arrived(folder))
    while _place[0] >= int((folder / "allowed").read_text()):
        time.sleep(0.02)


def _arrived(folder: Path) -> int:
    for number in itertools.count():
        try:
            (folder / f"arrived-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise AssertionError
