"""A process that has imported what every run needs, and forks itself for each.

``python -m equipoise.lifeline PIPE equipoise.study.processes.template MODULE…`` reads one JSON line per command from its input:
``{"run": key, "payload": path, "log": path}`` starts a run, and ``{"stop": key}`` kills one. It
answers on standard output with ``{"run": key, "exit": code}`` when the run's process has ended. At the end of its input it
kills what still runs and goes.

It never computes anything itself, so it has no threads that a fork would lose.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from equipoise.lifeline import hold_on
from equipoise.study.processes.worker import perform, say

_BREATH = 0.05  # seconds between two looks for ended processes


def prepare(modules: Sequence[str]) -> None:
    """Imports what runs need; this is what takes seconds."""
    for module in modules:
        with contextlib.suppress(Exception):  # the run itself will say better what is missing or broken
            importlib.import_module(module)


def main(lifeline: int, modules: Sequence[str]) -> NoReturn:
    """Serves until the input ends."""
    try:
        _serve(lifeline)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # An interpreter that has torch imported takes most of a second to clean up after itself, and the study waits for it.
        os._exit(0)


def _serve(lifeline: int) -> None:
    running: dict[int, str] = {}
    unread = b""
    try:
        while True:
            ready, _, _ = select.select([0], [], [], _BREATH)
            if ready:
                received = os.read(0, 65536)
                if not received:
                    return
                *lines, unread = (unread + received).split(b"\n")
                for line in lines:
                    command = json.loads(line)
                    if "stop" in command:
                        for process in [own for own, key in running.items() if key == command["stop"]]:
                            _kill(process)
                        continue
                    running[_start(command, lifeline)] = command["run"]
            for process, key in list(running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    del running[process]
                    say(1, run=key, exit=os.waitstatus_to_exitcode(status))
    finally:
        for process in running:
            _kill(process)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _kill(process: int) -> None:
    for kill in (os.killpg, os.kill):  # the group is there as soon as the run has made itself its leader
        with contextlib.suppress(ProcessLookupError):
            kill(process, signal.SIGKILL)


def _start(command: dict[str, str], lifeline: int) -> int:
    process = os.fork()
    if process:
        return process
    _become_run(command, lifeline)


def _become_run(command: dict[str, str], lifeline: int) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        hold_on(lifeline)
        messages = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for own, standard in ((null, 0), (log, 1), (log, 2)):
            os.dup2(own, standard)
        code = perform(Path(command["payload"]), messages)
    finally:
        os._exit(code)  # never back into the template's loop
