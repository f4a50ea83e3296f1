"""Several runs at a time, until all are done; one that fails is kept with its traceback, and the others go on."""

from __future__ import annotations

import queue
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from equipoise.errors import EquipoiseError
from equipoise.study.folder import Folder
from equipoise.study.plan import Run
from equipoise.study.problem import Problem
from equipoise.study.processes.launchers import launcher
from equipoise.study.processes.worker import pack
from equipoise.study.progress import Progress

__all__ = ["execute"]


def execute(
    problem: Problem,
    runs: Sequence[Run],
    folder: Folder,
    progress: Progress,
    *,
    epochs: int,
    gramian_every: int,
    jobs: int,
    start: str = "auto",
) -> list[Run]:
    """Carries out runs, each in a process of its own.

    Args:
        problem: what is trained.
        runs: what is to be done, in this order.
        folder: where records, failures and logs go.
        progress: is told what happens.
        epochs: passes over the training data a run.
        gramian_every: see :func:`equipoise.study.training.train`.
        jobs: how many processes at a time.
        start: how processes are started, see :func:`equipoise.study.processes.launchers.launcher`.

    Returns:
        The runs that failed.

    Raises:
        EquipoiseError: no process can be started.
    """
    waiting = deque(runs)
    running: dict[str, Run] = {}
    failed: list[Run] = []
    processes = launcher(start, problem.preload, folder.path / "processes.log")
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                payload = folder.work / f"{run.key}.pickle"
                payload.write_bytes(
                    pack(
                        {
                            "problem": problem,
                            "run": run,
                            "epochs": epochs,
                            "gramian_every": gramian_every,
                            "record": str(folder.record(run).absolute()),
                        }
                    )
                )
                processes.start(run.key, payload, _output(folder, run))
                running[run.key] = run
                progress.started(run)
            try:
                message = processes.messages.get(timeout=1)  # with a limit, because Ctrl-C is not heard everywhere without
            except queue.Empty:
                progress.show()
                continue
            if "lost" in message:
                raise EquipoiseError(message["lost"])
            run = running[message["run"]]
            if "epoch" in message:
                progress.epoch(run, message["epoch"])
                continue
            del running[run.key]
            (folder.work / f"{run.key}.pickle").unlink(missing_ok=True)
            failure = _settled(folder, run, epochs, message["exit"])
            if failure:
                failed.append(run)
            progress.ended(run, failure)
    finally:
        processes.close()
        _drop_if_empty(folder.path / "processes.log")
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
        with output.open("a") as file:
            file.write(f"\nThe process of this run was {reason}.\n")
    else:
        lines = output.read_text(errors="replace").strip().splitlines() if output.exists() else []
        reason = lines[-1] if lines else f"ended with exit code {code} and no output"
    _move(output, folder.failure(run))
    return reason


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.move(source, target)


def _drop_if_empty(path: Path) -> None:
    if path.exists() and not path.stat().st_size:
        path.unlink()
