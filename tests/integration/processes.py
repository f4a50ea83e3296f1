"""A few processes that talk to each other over gloo, kept between tests because starting one takes seconds."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# A collective that waits longer than this waits for a process that will never come.
COLLECTIVE_SECONDS = 10
ANSWER_SECONDS = 60


class Failure(Exception):
    """What a process raised, or that it hung."""


def _serve(rank: int, count: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, count), rank=rank, world_size=count, timeout=timedelta(seconds=COLLECTIVE_SECONDS)
    )
    pipe.send("ready")
    while (job := pipe.recv()) is not None:
        function, arguments = job
        torch.manual_seed(0)
        try:
            pipe.send((True, function(rank, count, *arguments)))
        except Exception as error:
            pipe.send((False, (type(error).__name__, str(error), traceback.format_exc())))


class Pool:
    """Runs ``function(rank, count, *arguments)`` in every one of its processes."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each process returned; raises :class:`Failure` if one of them raised."""
        answers = self.outcomes(function, *arguments)
        for fine, answer in answers:
            if not fine:
                raise Failure(answer[2])
        return [answer for _, answer in answers]

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[tuple[bool, Any]]:
        """For each process whether it returned, and what; or its error's type, message and traceback."""
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = []
        for pipe in self._pipes:
            if not pipe.poll(ANSWER_SECONDS):
                self.close()
                raise Failure("a process did not answer")
            answers.append(pipe.recv())
        if not all(fine for fine, _ in answers):
            # A collective that one of them missed leaves the group unusable.
            self.close()
        return answers

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        # One server imports everything once, and its children start within milliseconds.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["equipoise", "tests.integration.scenarios"])
        store = str(Path(tempfile.mkdtemp(prefix="equipoise-")) / "store")
        for rank in range(self.count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.count, store, there), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(here)
        for pipe in self._pipes:
            if not pipe.poll(ANSWER_SECONDS):
                self.close()
                raise Failure("a process did not start")
            pipe.recv()
