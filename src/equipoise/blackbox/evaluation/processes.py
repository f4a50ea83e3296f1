"""A process of its own that evaluates a function, can be killed, and needs no guard in the user's script."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from equipoise.cluster import dumped_for_nodes
from equipoise.errors import InputError, require
from equipoise.reading import one_line

__all__ = ["WorkerProcess", "dumped"]

_WORKER = Path(__file__).with_name("worker.py")


def dumped(function: Callable[..., Any], *, elsewhere: bool = False) -> bytes:
    """The function as bytes: by reference where it can be imported and stays here; by value in scripts and notebooks.

    Raises:
        InputError: it cannot be pickled.
        MissingExtraError: cloudpickle is not installed.
    """
    try:
        dumps = require("cloudpickle", "blackbox").dumps
        return bytes((dumped_for_nodes if elsewhere else dumps)(function))
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        raise InputError(
            f'f cannot be sent to a process ({error}); make what it holds in f itself, or take backend="threads"'
        ) from error


class WorkerProcess:
    """A Python process that runs ``worker.py`` and is spoken to through two pipes.

    ``multiprocessing`` would import the user's script again, or fork a process whose other threads hold locks.
    """

    def __init__(self, program: bytes) -> None:
        own_read, its_write = os.pipe()
        its_read, own_write = os.pipe()
        self._reader = Connection(own_read, writable=False)
        self._writer = Connection(own_write, readable=False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER), str(its_read), str(its_write)], pass_fds=(its_read, its_write)
            )
        finally:
            os.close(its_read)
            os.close(its_write)
        self._greeted = False
        self._program = program

    def send(self, points: Any) -> None:
        """Gives it points to evaluate; an end that is already broken shows in :meth:`receive`."""
        try:
            if not self._greeted:
                self._writer.send((sys.path, os.getcwd()))
                self._writer.send_bytes(self._program)
            self._writer.send(points)
        except OSError:  # the pipe is broken
            pass

    def receive(self, limit: float | None) -> tuple[Any, str]:
        """What the function returned, and what it raised, if anything.

        Raises:
            TimeoutError: it is not there within so many seconds; Python's own start does not count.
            EOFError: the process has died.
        """
        try:
            if not self._greeted:
                problem = self._reader.recv()
                self._greeted = True
                if problem:
                    raise InputError(f"f cannot be loaded in a process ({problem}); can it be imported there?")
            if not self._reader.poll(limit):
                raise TimeoutError
            received = self._reader.recv_bytes()
        except TimeoutError:
            raise
        except (OSError, pickle.UnpicklingError) as error:
            raise EOFError from error
        try:
            value, problem = pickle.loads(received)  # from our own process
        except Exception as error:
            return None, f"what f returned cannot be received: {type(error).__name__}: {one_line(error)}"
        return value, problem

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self.end()

    def end(self) -> int:
        """Lets it end, and waits for that.

        Returns:
            Its exit status; negative for a signal.
        """
        self._writer.close()
        self._reader.close()
        try:
            return self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
