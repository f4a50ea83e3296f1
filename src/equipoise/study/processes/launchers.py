"""Three ways of starting the process of a run, with one face: two on this machine, and one on those of a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from equipoise.cluster import LOSSES, Ray, head_gone, program
from equipoise.errors import EquipoiseError, InputError
from equipoise.reading import one_line
from equipoise.store import writing
from equipoise.study.processes.worker import THREADS
from equipoise.version import __version__

__all__ = ["Launcher", "at_a_time", "connected", "launcher"]


class Launcher(ABC):
    """Starts processes and passes on what they say.

    Attributes:
        messages: ``{"run": key, "epoch": number, …}`` and, once a process has ended, ``{"run": key, "exit": code}``;
            ``{"lost": reason}`` if no further run can be started. From another machine the last message of a run has
            ``content``, what it wrote, which whoever started it puts where it belongs.
    """

    def __init__(self) -> None:
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()

    @abstractmethod
    def start(self, key: str, payload: Path, log: Path) -> None:
        """Starts the process of a run."""

    @abstractmethod
    def stop(self, key: str) -> None:
        """Kills one run, if it still runs; its end is told in a message like any other."""

    @abstractmethod
    def close(self) -> None:
        """Kills whatever still runs, and waits until it is gone."""

    def _listen(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self.messages.put(json.loads(line))


class _Forking(Launcher):
    """Forks each run from a template that has torch imported already: saves seconds per run."""

    def __init__(self, preload: Sequence[str], errors: Path) -> None:
        super().__init__()
        self._errors = errors
        self._closing = False
        reading, self._lifeline = os.pipe()
        with writing(errors), errors.open("ab") as log:
            self._template = subprocess.Popen(
                [sys.executable, "-m", "equipoise.lifeline", str(reading), "equipoise.study.processes.template", *preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(reading,),
                env=os.environ | THREADS,
                start_new_session=True,  # Ctrl-C reaches the study alone, which then ends the others in order
            )
        os.close(reading)
        self._listener = threading.Thread(target=self._follow, daemon=True)
        self._listener.start()

    def _follow(self) -> None:
        assert self._template.stdout is not None
        self._listen(self._template.stdout)
        if not self._closing:
            self.messages.put({"lost": f"the process that starts the runs ended; see {self._errors}"})

    def start(self, key: str, payload: Path, log: Path) -> None:
        self._command(run=key, payload=str(payload), log=str(log))

    def stop(self, key: str) -> None:
        self._command(stop=key)

    def _command(self, **command: str) -> None:
        assert self._template.stdin is not None
        try:
            self._template.stdin.write((json.dumps(command) + "\n").encode())
            self._template.stdin.flush()
        except BrokenPipeError:
            self.messages.put({"lost": f"the process that starts the runs ended; see {self._errors}"})

    def close(self) -> None:
        self._closing = True
        os.close(self._lifeline)
        assert self._template.stdin is not None
        assert self._template.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._template.stdin.close()
        self._template.wait()
        self._listener.join()
        self._template.stdout.close()


class _Spawning(Launcher):
    """Starts each run from nothing, for systems on which a fork after importing torch is not safe."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, tuple[subprocess.Popen[bytes], threading.Thread]] = {}
        self._closing = False

    def start(self, key: str, payload: Path, log: Path) -> None:
        with writing(log), log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "equipoise.lifeline", "0", "equipoise.study.processes.worker", str(payload)],
                stdin=subprocess.PIPE,  # nothing is ever sent: it is the lifeline
                stdout=subprocess.PIPE,
                stderr=output,
                env=os.environ | THREADS,
                start_new_session=True,
            )
        listener = threading.Thread(target=self._follow, args=(key, process), daemon=True)
        self._running[key] = (process, listener)
        listener.start()

    def _follow(self, key: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._listen(process.stdout)
        code = process.wait()
        process.stdout.close()
        if not process.stdin.closed:
            process.stdin.close()
        if not self._closing:
            del self._running[key]
            self.messages.put({"run": key, "exit": code})

    def stop(self, key: str) -> None:
        if key in self._running:
            self._running[key][0].kill()

    def close(self) -> None:
        self._closing = True
        for process, listener in list(self._running.values()):
            process.kill()
            listener.join()


class _OnRay(Launcher):
    """Hands each run, the same program as of ``_Spawning``, to Ray; what it wrote comes back, for nodes write nothing."""

    def __init__(self, asked: Ray) -> None:
        super().__init__()
        self._open = contextlib.ExitStack()
        self._ray = self._open.enter_context(asked.connected())
        self._program = self._ray.remote(program)
        resources = {"num_cpus": asked.cpus, "num_gpus": asked.gpus}
        self._options = {**resources, "max_retries": LOSSES, "num_returns": "streaming"}
        self._running, self._stopped = dict[str, Any](), set[str]()
        self._lost, self._closing, self._followers = False, threading.Event(), list[threading.Thread]()
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self, key: str, payload: Path, log: Path) -> None:
        work = "equipoise.study.processes.worker", payload.read_bytes(), THREADS, os.getcwd(), __version__
        self._running[key] = self._program.options(name=key, **self._options).remote(*work)
        self._followers.append(threading.Thread(target=self._follow, args=(key, self._running[key], log), daemon=True))
        self._followers[-1].start()

    def _follow(self, key: str, task: Any, log: Path) -> None:
        try:
            for reference in task:
                message = self._ray.get(reference)
                if "exit" in message:
                    with writing(log), log.open("ab") as file:
                        file.write(message.pop("output"))
                if not self._closing.is_set():
                    self.messages.put({**message, "run": key})
        except BaseException as error:  # whatever it is: a run whose end nobody tells would be waited for without end
            cause = getattr(error, "cause", None) or error
            if self._closing.is_set():
                return
            if isinstance(cause, EquipoiseError):  # another version on a node, or a full disk here
                self.messages.put({"lost": str(cause)})
                return
            if key not in self._stopped:  # or it was asked to be killed
                with contextlib.suppress(OSError), log.open("ab") as file:
                    file.write(f"The cluster could not carry out this run: {one_line(cause)}\n".encode())
            self.messages.put({"run": key, "exit": -9 if key in self._stopped else 1})
        finally:
            self._running.pop(key, None)

    def _watch(self) -> None:
        """Says so if the cluster's head is gone: Ray itself would wait for a minute, and then end this process."""
        address = self._ray.get_runtime_context().gcs_address
        if gone := head_gone(address, self._closing):
            self._lost = True
            self.messages.put({"lost": f"the Ray cluster at {address} does not answer any more ({gone}); start again to go on"})

    def stop(self, key: str) -> None:
        if key in self._running:
            self._stopped.add(key)
            self._ray.cancel(self._running[key], force=True)

    def close(self) -> None:
        self._closing.set()
        for task in [] if self._lost else list(self._running.values()):
            with contextlib.suppress(Exception):  # such as that the cluster is gone
                self._ray.cancel(task, force=True)
        for follower in [] if self._lost else self._followers:  # Ray does not survive being asked while it disconnects
            follower.join(20.0)
        self._open.close()


def connected(start: str | Ray) -> contextlib.AbstractContextManager[Any]:
    """Keeps a cluster for several launchers one after the other; nothing on one machine."""
    return start.connected() if isinstance(start, Ray) else contextlib.nullcontext()


def at_a_time(start: str | Ray) -> int:
    """How many runs there is room for: processors of this machine to use, or what the connected cluster has."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return start.at_a_time() if isinstance(start, Ray) else here


def launcher(start: str | Ray, preload: Sequence[str], errors: Path) -> Launcher:
    """The launcher of that kind: ``"fork"``, ``"spawn"``, ``"auto"`` for what suits the system, or a Ray cluster.

    ``preload`` is what forked runs find imported; ``errors`` is the file for what goes wrong while starting.

    Raises:
        InputError: another kind.
    """
    if isinstance(start, Ray):
        return _OnRay(start)
    if start == "auto":
        start = "fork" if sys.platform == "linux" else "spawn"
    if start == "fork":
        return _Forking(preload, errors)
    if start == "spawn":
        return _Spawning()
    raise InputError(f'start is "{start}"; it must be "auto", "fork", "spawn" or a Ray')
