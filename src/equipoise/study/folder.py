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

from equipoise.store import RunStore, writing
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
    """A study's folder."""

    parts = (".lock", ".work", "runs", "failed", "logs", "pictures", "processes.log", "sweeps", "tuning")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "study.json", what="study", schema=SCHEMA)

    @property
    def work(self) -> Path:
        """Where running processes keep what they need."""
        return self.path / ".work"

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
        known = {"lr": [], "tuned": {}} | super().configuration()
        for method in known["methods"].values():
            options = {_RENAMED.get(name, name): value for name, value in method["options"].items()}
            method["options"] = _ADDED.get(method["name"], {}) | options
        return known

    def claim_for(self, problem: Problem, methods: Sequence[Method], seeds: Sequence[int], settings: dict[str, Any]) -> None:
        """Makes the folder this study's, or checks that it is: methods and seeds may be added, nothing may be changed.

        Raises:
            InputError: the folder holds another study (the message says what differs), or something else altogether.
        """
        described = {method.label: {"name": method.name, "options": dict(method.options)} for method in methods}
        self.claim(
            {
                "problem": problem.identity(),
                "lr": [],
                "tuned": {},
                **settings,
                "methods": described,
                "seeds": sorted(set(seeds)),
            },
            growing=("methods", "seeds"),
            kept=("tuned",),
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
        """As for any store; what the processes of a killed study needed goes, and what this one's need goes at the end."""
        with super().locked(waiting):
            shutil.rmtree(self.work, ignore_errors=True)
            with writing(self.work):
                self.work.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)
