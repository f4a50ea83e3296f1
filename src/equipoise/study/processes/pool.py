"""Several runs at a time, until all are done; one that fails is kept with its traceback, and the others go on."""

from __future__ import annotations

import queue
import shutil
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from equipoise.cluster import Ray
from equipoise.errors import EquipoiseError
from equipoise.progress import Progress
from equipoise.store import write_whole, writing
from equipoise.study.folder import Folder
from equipoise.study.plan import Run
from equipoise.study.problem import Problem
from equipoise.study.processes.launchers import launcher
from equipoise.study.processes.worker import pack

__all__ = ["Event", "Pool", "execute"]

# Making a torch optimizer imports torch._dynamo, which takes longer than many a run of a small problem.
_EVERY_RUN = ("equipoise.study.training", "torch._dynamo", "numpy.random")


@dataclass(frozen=True)
class Event:
    """What happened to a run: it has finished an epoch, or it has ended.

    Attributes:
        run: which.
        epoch: the epoch that it has finished, counted from 1; 0 if it has ended.
        watched: the validation metrics asked for, after that epoch; ``None`` for one that is no finite number.
        failure: of a run that has ended: what went wrong, in one line; empty if it has written its record.
    """

    run: Run
    epoch: int = 0
    watched: tuple[float | None, ...] = ()
    failure: str = ""


class Pool:
    """Runs as processes: started one by one, watched together. A context manager, which kills what still runs in the end.

    ``watch`` names the validation metrics that events of epochs tell; ``alone`` says that no two run at a time, which records
    keep, for only then do their times mean anything. ``gpus`` are given to runs, each to one at a time, so that no more runs
    may be started than there are, see :class:`equipoise.study.computing.Computing`. The other arguments are those of
    :func:`equipoise.study.training.train` and :func:`equipoise.study.processes.launchers.launcher`.
    """

    def __init__(
        self,
        problem: Problem,
        folder: Folder,
        *,
        epochs: int,
        gramian_every: int | None,
        start: str | Ray = "auto",
        watch: Sequence[str] = (),
        alone: bool = False,
        gpus: Sequence[str] = (),
    ) -> None:
        self.problem = problem
        self.folder = folder
        self.epochs = epochs
        self.gramian_every = gramian_every
        self.watch = tuple(watch)
        self.alone = alone
        self.running: dict[str, Run] = {}
        self._free = list(gpus)
        self._given: dict[str, str] = {}
        self._errors = folder.errors
        self._elsewhere = isinstance(start, Ray)
        self._processes = launcher(start, (*_EVERY_RUN, *problem.preload), self._errors)
        # Not in the folder of results: what lies here is unpickled.
        with writing("a temporary folder"):
            self._own = tempfile.TemporaryDirectory(prefix="equipoise-", ignore_cleanup_errors=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._processes.close()
        self._own.cleanup()
        if self._errors.exists() and not self._errors.stat().st_size:
            self._errors.unlink(missing_ok=True)

    def start(self, run: Run) -> None:
        """Starts a run."""
        payload = self._payload(run)
        environment = {}
        if self._free:
            environment["CUDA_VISIBLE_DEVICES"] = self._given[run.key] = self._free.pop(0)
        packed = pack(
            {
                "problem": self.problem,
                "run": run,
                "epochs": self.epochs,
                "gramian_every": self.gramian_every,
                "record": str(self.folder.record(run).absolute()),
                "watch": self.watch,
                "alone": self.alone,
            },
            environment,
            elsewhere=self._elsewhere,
        )
        write_whole(payload, packed, private=True)
        self._processes.start(run.key, payload, _output(self.folder, run))
        self.running[run.key] = run

    def stop(self, run: Run) -> None:
        """Kills a run; its end is an event like any other."""
        self._processes.stop(run.key)

    def wait(self) -> Event | None:
        """What happens next; ``None`` if nothing does within a second.

        Raises:
            EquipoiseError: no process can be started any more.
        """
        try:
            message = self._processes.messages.get(timeout=1)  # with a limit, because Ctrl-C is not heard everywhere without
        except queue.Empty:
            return None
        if "lost" in message:
            raise EquipoiseError(message["lost"])
        run = self.running[message["run"]]
        if "epoch" in message:
            return Event(run, message["epoch"], tuple(message["watched"]))
        del self.running[run.key]
        if run.key in self._given:
            self._free.append(self._given.pop(run.key))
        if content := message.get("content"):
            write_whole(self.folder.record(run), content)
        self._payload(run).unlink(missing_ok=True)
        return Event(run, failure=_settled(self.folder, run, self.epochs, message["exit"]))

    def _payload(self, run: Run) -> Path:
        return Path(self._own.name) / f"{run.key}.pickle"


def execute(
    problem: Problem,
    runs: Sequence[Run],
    folder: Folder,
    progress: Progress,
    *,
    epochs: int,
    gramian_every: int | None,
    jobs: int,
    start: str | Ray = "auto",
    gpus: Sequence[str] = (),
) -> list[Run]:
    """Carries out runs, each in a process of its own, and tells ``progress``; arguments as for :class:`Pool`.

    Returns:
        The runs that failed.

    Raises:
        EquipoiseError: no process can be started.
    """
    waiting = deque(runs)
    failed: list[Run] = []
    alone = jobs == 1 and folder.part is None
    with Pool(problem, folder, epochs=epochs, gramian_every=gramian_every, start=start, alone=alone, gpus=gpus) as pool:
        while waiting or pool.running:
            while waiting and len(pool.running) < jobs:
                run = waiting.popleft()
                pool.start(run)
                progress.started(run)
            event = pool.wait()
            if event is None:
                progress.show()
            elif event.epoch:
                progress.epoch(event.run, event.epoch)
            else:
                if event.failure:
                    failed.append(event.run)
                progress.ended(event.run, event.failure)
    return failed


def _output(folder: Folder, run: Run) -> Path:
    return folder.work.absolute() / f"{run.key}.log"


def _settled(folder: Folder, run: Run, epochs: int, code: int) -> str:
    """Puts a run's output where it belongs; one line on what went wrong, or nothing."""
    output = _output(folder, run)
    succeeded = code == 0 and folder.finished(run, epochs)
    if succeeded:
        folder.failure(run).unlink(missing_ok=True)
        if output.exists() and output.stat().st_size:
            _move(output, folder.log(run))
        return ""
    if code < 0:
        reason = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        with writing(output), output.open("a", encoding="utf-8") as file:
            file.write(f"\nThe process of this run was {reason}.\n")
    else:
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines() if output.exists() else []
        reason = lines[-1] if lines else f"ended with exit code {code} and no output"
    _move(output, folder.failure(run))
    return reason


def _move(source: Path, target: Path) -> None:
    with writing(target):
        target.parent.mkdir(exist_ok=True)
        shutil.move(source, target)
