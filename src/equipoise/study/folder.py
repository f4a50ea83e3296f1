"""The folder of a study: what lies where, what it remembers, and who may write in it.

::

    study.json        what was asked for: problem, epochs, methods, seeds
    runs/             one JSON file per finished run
    failed/           the output and traceback of a run that failed, until it succeeds
    logs/             what finished runs printed, if anything
    report.md, report.html, pictures/
    .work/            what the processes need while they run; may be deleted when none does
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from equipoise.store import RunStore, locked, refuse_links, writing
from equipoise.study.methods import Method
from equipoise.study.plan import Run
from equipoise.study.problem import Problem
from equipoise.study.records import SCHEMA, STUDY, fault, matches

__all__ = ["Folder"]


_RENAMED = {"learning_rate": "lr", "step_size": "lr", "lower_step_size": "lower_lr", "normalise": "normalize"}
"""Options that were called otherwise when some folders were begun."""
_ADDED: dict[str, dict[str, Any]] = {name: {"max_norm": None} for name in ("fairgrad", "cagrad", "pcgrad", "graddrop")}
"""Options that some methods lacked when some folders were begun, with the value that does what was done then."""


class Folder(RunStore):
    """A study's folder; ``part`` is which part of how many this process takes care of: several may then work here at a time."""

    parts = (".lock", ".turn", ".work", "runs", "failed", "logs", "pictures", "processes.log", "sweeps")

    def __init__(self, path: str | os.PathLike[str], part: tuple[int, int] | None = None) -> None:
        super().__init__(path, "study.json", what="study", schema=SCHEMA)
        self.part = part
        self._suffix = "" if part is None else f"-{part[0]}-of-{part[1]}"
        self.errors = self.path / f"processes{self._suffix}.log"  # what goes wrong with starting processes

    @property
    def work(self) -> Path:
        """Where running processes keep what they need."""
        return self.path / f".work{self._suffix}"

    @property
    def pictures(self) -> Path:
        """Where the report's pictures lie."""
        return self.path / "pictures"

    def record(self, run: Run) -> Path:
        """The file of a finished run."""
        return self.file(run.key)

    def failure(self, run: Run) -> Path:
        """Output and traceback of a run that failed."""
        return self.path / "failed" / f"{run.key}.txt"

    def log(self, run: Run) -> Path:
        """What a finished run printed."""
        return self.path / "logs" / f"{run.key}.txt"

    def wrong(self, known: dict[str, Any]) -> str:
        """What is wrong with ``study.json``, in words."""
        if said := STUDY(known):
            return said
        tasks, metrics = known["problem"]["tasks"], known["problem"]["metrics"]
        for what, names in (("task", tasks), ("metric", [metric["name"] for metric in metrics])):
            if not names or len(set(names)) < len(names):
                return f".problem has {f'a {what} twice' if names else f'no {what}s'}"
        return next((f".problem has a metric of no task: {own['name']}" for own in metrics if own["task"] not in tasks), "")

    def configuration(self) -> dict[str, Any]:
        """As for any store; options have their names of today, and those that came later are there."""
        known = {"lr": [], "tuned": {}, "device": "", "compile": "", "amp": "", **super().configuration()}
        for method in known["methods"].values():
            options = {_RENAMED.get(name, name): value for name, value in method["options"].items()}
            method["options"] = _ADDED.get(method["name"], {}) | options
        return known

    def claim_for(
        self, problem: Problem, methods: Sequence[Method], seeds: Sequence[int], settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Makes the folder this study's, or checks that it is: methods and seeds may be added, nothing may be changed.

        Returns:
            What the folder remembers now; it knows better how often to look at conflicts where that is left open.

        Raises:
            InputError: the folder holds another study (the message says what differs), or something else altogether.
        """
        described = {
            method.label: {
                "name": method.name,
                "options": dict(method.options) | ({} if method.lr is None else {"optimizer.lr": method.lr}),
            }
            for method in methods
        }
        return self.claim(
            {
                "problem": problem.identity(),
                "lr": [],
                "tuned": {},
                **settings,
                "methods": described,
                "seeds": sorted(set(seeds)),
            },
            growing=("methods", "seeds"),
            kept=("tuned", *(key for key in ("gramian_every",) if settings.get(key) is None)),
            advice="give another folder, or start with the configuration it has (adding methods or seeds is fine)",
        )

    def fault(self, record: Any) -> str:
        """Why a record is not whole, see :mod:`equipoise.study.records`."""
        return fault(record)

    def finished(self, run: Run, epochs: int) -> bool:
        """Whether a whole record of this run is there."""
        record = self.find(run.key)
        return record is not None and matches(record, run, epochs)

    def failures(self) -> dict[str, Path]:
        """Key of each run that failed → its output and traceback."""
        return {path.stem: path for path in sorted((self.path / "failed").glob("*.txt"))}

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], object] | None = None) -> Iterator[None]:
        """As for any store; what processes need goes. A part keeps out itself and the whole, which keeps out every part."""
        with self._whole(waiting) if self.part is None else self._parted():
            shutil.rmtree(self.work, ignore_errors=True)
            with writing(self.work):
                self.work.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    @contextlib.contextmanager
    def _whole(self, waiting: Callable[[], object] | None) -> Iterator[None]:
        with super().locked(waiting):
            for own in sorted(self.path.glob(".part-*.lock")):
                busy = f'part {own.stem.removeprefix(".part-")} of a study is running in "{self.path}"; wait for it'
                with locked(own, busy=busy, waiting=waiting):
                    pass
            yield

    @contextlib.contextmanager
    def _parted(self) -> Iterator[None]:
        self.make()
        own = f".part{self._suffix}.lock"
        refuse_links(self.path, (*self.parts, own, self.work.name, self.errors.name))
        busy = f'part {self._suffix[1:]} of this study is running in "{self.path}" already; give another part, or wait for it'
        whole = f'a study that is not in parts is running in "{self.path}"; wait for it, or give another folder'
        with locked(self.path / own, busy=busy):
            # In turns, for parts must not take each other's look at this lock for a study of everything.
            with self.turn(), locked(self.path / ".lock", busy=whole):
                self.tidy()
            yield

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other parts from writing what the folder remembers; without parts there are none."""
        return contextlib.nullcontext() if self.part is None else locked(self.path / ".turn")
