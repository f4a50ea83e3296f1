"""Evaluates points, survives failures and counts them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal

import numpy as np

from equipoise.blackbox.arrays import Array, read_array
from equipoise.blackbox.evaluation.processes import WorkerProcess, dumped
from equipoise.cluster import LOSSES, Ray, head_gone
from equipoise.errors import EquipoiseError, InputError
from equipoise.reading import one_line

__all__ = ["Answer", "Evaluator", "Failures", "evaluator"]


@dataclass(frozen=True)
class Answer:
    """What came of one point: its outputs [m], or why there are none.

    Attributes:
        outputs: [m], or ``None``.
        kind: ``"exception"``, ``"timeout"``, ``"crash"`` (the process died), ``"shape"`` or ``"late"`` (it was not waited for);
            empty where there are outputs.
        message: one line on what happened.
    """

    outputs: Array | None
    kind: str = ""
    message: str = ""


@dataclass
class Failures:
    """How many evaluations failed, and how.

    Attributes:
        counts: kind → number. Kinds are those of :class:`Answer`, and ``"not finite"``.
        first: kind → what the first of them said.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def add(self, kind: str, message: str) -> None:
        """Counts one."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, message)

    def table(self, answers: list[Answer], objectives: int | None, least: int = 1) -> Array | None:
        """The outputs [N, m] of an iteration, rows of failures not a number; counts the failures.

        Args:
            answers: one per row.
            objectives: m if it is known; otherwise what most of the rows with outputs have.
            least: m that the optimizer needs; rows of fewer outputs decide only where there are no others.

        Returns:
            The table, or ``None`` where m is still unknown because every evaluation failed.
        """
        sizes = [answer.outputs.size for answer in answers if answer.outputs is not None and answer.outputs.ndim == 1]
        # The first answer may be the one that is wrong.
        known = objectives or max(sizes, key=lambda size: (size >= least, sizes.count(size)), default=0)
        table = np.full((len(answers), known), np.nan)
        for row, answer in zip(table, answers, strict=True):
            if answer.outputs is None:
                self.add(answer.kind, answer.message)
            elif answer.outputs.shape != (known,):
                self.add("shape", f"f returned the shape {list(answer.outputs.shape)}; expected {[known]} as from other points")
            else:
                row[:] = answer.outputs
                if not np.isfinite(row).all():
                    self.add("not finite", f"outputs {row.tolist()}")
        return table if known else None

    def __str__(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "none"


Function = Callable[[Array], Any]


class Evaluator(ABC):
    """Turns points into answers. Use it in a ``with`` block, which ends what it has started."""

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    @abstractmethod
    def __call__(self, points: Array) -> list[Answer]:
        """Evaluates every row; one answer per row, in their order."""

    def strays(self) -> list[tuple[Array, Answer]]:
        """Points of earlier calls that were not waited for and have been answered since, each of them once."""
        return []


class _Here(Evaluator):
    """In this thread."""

    def __init__(self, function: Function, batched: bool) -> None:
        self._function = function
        self._batched = batched

    def __call__(self, points: Array) -> list[Answer]:
        if not self._batched:
            return [attempt(self._function, point) for point in points]
        return rows_of(attempt(self._function, points), points.shape[0])


class _Parts(Evaluator):
    """In several workers: one row per job, or a part of the batch each where the function takes batches."""

    def __init__(self, workers: int, batched: bool, quorum: float) -> None:
        self._workers = self._most = workers
        self._batched = batched
        self._quorum = quorum
        # Threads go on from call to call: (call, number, points) in, the same with an answer out.
        self._jobs: SimpleQueue[tuple[int, int, Array] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, int, Array, Answer | BaseException]] = SimpleQueue()
        self._call = 0
        self._threads: list[threading.Thread] = []
        self._strays: list[tuple[Array, Answer]] = []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call += 1
        for _ in self._threads:
            self._jobs.put(None)

    def __call__(self, points: Array) -> list[Answer]:
        if self._batched:
            parts = np.array_split(points, min(self._workers, points.shape[0]))
            answers = self._run(list(parts))
            return [row for answer, part in zip(answers, parts, strict=True) for row in rows_of(answer, part.shape[0])]
        return self._run(list(points))

    def strays(self) -> list[tuple[Array, Answer]]:
        found, self._strays = self._strays, []
        return found

    def _run(self, jobs: list[Array]) -> list[Answer]:
        """Answers to as many jobs as the quorum asks for; those that are not begun by then are given up."""
        self._call += 1
        while len(self._threads) < min(self._most, len(jobs)):
            worker = threading.Thread(target=self._serve, args=(len(self._threads),), daemon=True)
            self._threads.append(worker)
            worker.start()
        for number, job in enumerate(jobs):
            self._jobs.put((self._call, number, job))
        answers: dict[int, Answer] = {}
        failed = 0  # they come early where f fails at once, and an iteration of them alone would teach nothing
        while len(answers) - failed < math.ceil(self._quorum * (len(jobs) - failed)) or not self._done.empty():
            call, number, points, answer = self._done.get()
            if isinstance(answer, BaseException):
                raise answer
            if call == self._call:
                answers[number] = answer
                failed += answer.outputs is None or not np.isfinite(answer.outputs).all()
            elif points.ndim == 1:
                self._strays.append((points, answer))
            else:
                self._strays += zip(points, rows_of(answer, len(points)), strict=True)
        self._call += 1  # what is still queued is not begun any more
        return [answers.get(number, Answer(None, "late", "it was not waited for")) for number in range(len(jobs))]

    def _serve(self, worker: int) -> None:
        while (job := self._jobs.get()) is not None:
            call, number, points = job
            if call == self._call:
                try:
                    self._done.put((call, number, points, self._one(worker, points)))
                except BaseException as error:
                    self._done.put((call, number, points, error))

    @abstractmethod
    def _one(self, worker: int, points: Array) -> Answer:
        """Does one job."""


class _Threads(_Parts):
    def __init__(self, function: Function, workers: int, batched: bool, limit: float | None, quorum: float) -> None:
        super().__init__(workers, batched, quorum)
        self._function = function
        self._limit = limit

    def _one(self, worker: int, points: Array) -> Answer:
        if self._limit is None:
            return attempt(self._function, points)
        # A thread cannot be stopped: one that is late is left alone, and its answer is not waited for.
        box: list[Answer | KeyboardInterrupt] = []

        def work() -> None:
            try:
                box.append(attempt(self._function, points))
            except KeyboardInterrupt as interrupt:
                box.append(interrupt)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self._limit)
        found = box[0] if box else late(self._limit)
        if isinstance(found, KeyboardInterrupt):
            raise found
        return found


class _Processes(_Parts):
    def __init__(self, function: Function | bytes, workers: int, batched: bool, limit: float | None, quorum: float) -> None:
        super().__init__(workers, batched, quorum)
        self._program = function if isinstance(function, bytes) else dumped(function)
        self._limit = limit
        self._processes: list[WorkerProcess | None] = [None] * workers

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        for process in self._processes:
            if process is not None:
                process.end() if self._quorum == 1 else process.kill()  # one that is late would be waited for
        self._processes = [None] * self._workers

    def _one(self, worker: int, points: Array) -> Answer:
        process = self._processes[worker]
        if process is None:
            process = self._processes[worker] = WorkerProcess(self._program)
        process.send(points)
        try:
            value, problem = process.receive(self._limit)
        except TimeoutError:
            process.kill()
            self._processes[worker] = None
            return late(self._limit or 0.0)
        except EOFError:
            status = process.end()
            self._processes[worker] = None
            return Answer(None, "crash", f"the process that evaluated it ended with status {status}")
        return Answer(None, "exception", problem) if problem else read(value)


class _Node:
    """A process on a node of a cluster, with the folder and the places of modules of whoever asks, as far as they are there."""

    def __init__(self, program: bytes, limit: float | None, folder: str, path: list[str]) -> None:
        sys.path += [place for place in path if place not in sys.path]
        if os.path.isdir(folder):
            os.chdir(folder)
        self._own = _Processes(program, 1, False, limit, 1.0)

    def answer(self, points: Array) -> Answer:
        return self._own._one(0, points)


class _OnRay(_Parts):
    """An actor per worker, which Ray places and begins again elsewhere if its node is lost, with the point it was at."""

    def __init__(self, asked: Ray, function: Function, workers: int, batched: bool, limit: float | None, quorum: float) -> None:
        super().__init__(workers, batched, quorum)
        self._open, self._ended, self._gone = contextlib.ExitStack(), threading.Event(), ""
        self._ray = self._open.enter_context(asked.connected())
        options = {"num_cpus": asked.cpus, "num_gpus": asked.gpus, "max_restarts": LOSSES, "max_task_retries": LOSSES}
        actor = self._ray.remote(_Node).options(**options)
        program = self._ray.put(dumped(function, elsewhere=True))  # once, however many workers there are
        # An actor that has no room would keep its point waiting; batches are divided by the number asked for all the same.
        self._most = min(workers, asked.at_a_time())
        self._actors = [actor.remote(program, limit, os.getcwd(), sys.path) for _ in range(self._most)]
        threading.Thread(target=self._watch, daemon=True).start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self._ended.set()
        for actor in [] if self._gone else self._actors:
            self._ray.kill(actor)
        for thread in [] if self._gone else self._threads:  # Ray does not survive being asked while it disconnects
            thread.join(20.0)
        self._open.close()

    def _watch(self) -> None:
        self._gone = head_gone(self._ray.get_runtime_context().gcs_address, self._ended)

    def _one(self, worker: int, points: Array) -> Answer:
        reference = self._actors[worker].answer.remote(points)
        try:
            while not self._ray.wait([reference], timeout=1.0)[0]:
                if self._gone:
                    raise EquipoiseError(f"the Ray cluster does not answer any more ({self._gone}); go on from a checkpoint")
            answer: Answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # such as that f cannot be loaded there
            cause = getattr(error, "cause", None) or error
            raise EquipoiseError(f"the Ray cluster could not evaluate a point: {one_line(cause)}") from error
        return answer


def evaluator(
    function: Function,
    *,
    workers: int = 1,
    backend: Literal["threads", "processes"] | Ray = "processes",
    batched: bool = False,
    limit: float | None = None,
    quorum: float = 1.0,
) -> Evaluator:
    """The evaluator for what :func:`~equipoise.blackbox.minimize` is asked for.

    A late evaluation in a process is killed; one in a thread runs on, unheard.

    Raises:
        InputError: an argument that cannot be used.
    """
    if not callable(function):
        raise InputError(f"f is {function!r}; expected a function of a point [d] (or, batched, of points [N, d])")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InputError(f"workers is {workers!r}; give a whole number of at least 1")
    if backend not in ("threads", "processes") and not isinstance(backend, Ray):
        raise InputError(f'backend is {backend!r}; expected "threads", "processes" or a Ray')
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise InputError(f"evaluation_seconds is {limit!r}; give a number greater than 0, or None for no limit")
    if isinstance(backend, Ray):
        return _OnRay(backend, function, workers, batched, limit, quorum)
    if workers == 1 and limit is None:
        return _Here(function, batched)
    if backend == "threads":
        return _Threads(function, workers, batched, limit, quorum)
    return _Processes(function, workers, batched, limit, quorum)


def attempt(function: Function, points: Array) -> Answer:
    """Calls the function; what it raises becomes an answer, ``sys.exit`` included, and Ctrl-C alone passes."""
    try:
        # A copy: a function that writes into its argument must not change the samples.
        value = function(points.copy())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Answer(None, "exception", f"{type(error).__name__}: {one_line(error)}")
    return read(value)


def read(value: Any) -> Answer:
    """The outputs as an array, if they are one."""
    try:
        return Answer(np.atleast_1d(read_array(value, "what f returned")))
    except InputError as error:
        return Answer(None, "shape", str(error))


def late(limit: float) -> Answer:
    """The answer for what took too long."""
    return Answer(None, "timeout", f"it took longer than {limit:g} s")


def rows_of(answer: Answer, rows: int) -> list[Answer]:
    """One answer per row from that of a batch; a batch that failed is failed rows."""
    if answer.outputs is None:
        return [answer] * rows
    if answer.outputs.ndim != 2 or answer.outputs.shape[0] != rows:
        said = f"f returned shape {answer.outputs.shape} for {rows} points; expected [{rows}, m] from a batched function"
        return [Answer(None, "shape", said)] * rows
    return [Answer(row) for row in answer.outputs]
