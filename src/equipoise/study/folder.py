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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from equipoise.errors import InputError
from equipoise.study.files import TEMPORARY, plain, read_json, write_json
from equipoise.study.methods import Method
from equipoise.study.plan import Run
from equipoise.study.problem import Problem
from equipoise.study.records import SCHEMA, Record, matches, read_record

__all__ = ["Folder"]


class Folder:
    """A study's folder.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

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
        return self.path / "runs" / f"{run.key}.json"

    def failure(self, run: Run) -> Path:
        """Output and traceback of a run that failed."""
        return self.path / "failed" / f"{run.key}.txt"

    def log(self, run: Run) -> Path:
        """What a finished run printed."""
        return self.path / "logs" / f"{run.key}.txt"

    def configuration(self) -> dict[str, Any]:
        """What the folder remembers.

        Raises:
            InputError: it is not the folder of a study.
        """
        known = read_json(self.path / "study.json")
        if not isinstance(known, dict) or "problem" not in known:
            raise InputError(f'"{self.path}" is not the folder of a study: it holds no readable study.json')
        if known.get("schema") != SCHEMA:
            raise InputError(
                f'the study in "{self.path}" was written by another version of equipoise (schema '
                f"{known.get('schema')}, this one reads {SCHEMA}); use another folder"
            )
        return known

    def claim(self, problem: Problem, methods: Sequence[Method], seeds: Sequence[int], settings: dict[str, Any]) -> None:
        """Makes the folder this study's, or checks that it is: methods and seeds may be added, nothing may be changed.

        Args:
            problem: what is trained.
            methods: those asked for now; the folder remembers all that ever were.
            seeds: those asked for now.
            settings: everything else that has to stay as it was, such as the number of epochs.

        Raises:
            InputError: the folder holds another study (the message says what differs), or something else altogether.
        """
        asked = plain({"schema": SCHEMA, "problem": problem.identity(), **settings, "methods": {}, "seeds": []})
        if (self.path / "study.json").exists():
            known = self.configuration()
            self._compare(known, asked, methods)
            asked["methods"], asked["seeds"] = known["methods"], known["seeds"]
        elif self.path.exists() and any(entry.name not in (".work", ".lock") for entry in self.path.iterdir()):
            raise InputError(f'"{self.path}" holds files but no study; give an empty or new folder')
        for method in methods:
            asked["methods"][method.label] = plain({"name": method.name, "options": dict(method.options)})
        asked["seeds"] = sorted({*asked["seeds"], *seeds})
        write_json(self.path / "study.json", asked)

    def _compare(self, known: dict[str, Any], asked: dict[str, Any], methods: Iterable[Method]) -> None:
        differences = [
            f"{key} {_short(known.get(key))} there, {_short(asked[key])} now"
            for key in asked
            if key not in ("methods", "seeds", "problem") and known.get(key) != asked[key]
        ]
        there, now = known["problem"], asked["problem"]
        differences += [
            f"problem {key} {_short(there.get(key))} there, {_short(now.get(key))} now"
            for key in dict.fromkeys((*there, *now))
            if there.get(key) != now.get(key)
        ]
        for method in methods:
            described = plain({"name": method.name, "options": dict(method.options)})
            before = known["methods"].get(method.label, described)
            if before != described:
                differences.append(f'method "{method.label}" {_short(before)} there, {_short(described)} now')
        if differences:
            raise InputError(
                f'the folder "{self.path}" holds a study of another configuration ({"; ".join(differences)}); '
                "give another folder, or start with the configuration it has (adding methods or seeds is fine)"
            )

    def finished(self, run: Run, epochs: int) -> bool:
        """Whether a whole record of this run is there."""
        record = read_record(self.record(run))
        return record is not None and matches(record, run, epochs)

    def records(self) -> list[Record]:
        """All whole records, in the order of their file names."""
        read = (read_record(path) for path in sorted((self.path / "runs").glob("*.json")))
        return [record for record in read if record is not None]

    def failures(self) -> dict[str, Path]:
        """Key of each run that failed → its output and traceback."""
        return {path.stem: path for path in sorted((self.path / "failed").glob("*.txt"))}

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keeps a second study out of the folder, and clears away what a killed one left half-written.

        Args:
            waiting: called again and again while another study is running in the folder; left out, that is an error.

        Raises:
            InputError: another study is running in the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            while not _lock(file.fileno()):
                if waiting is not None:
                    waiting()
                    continue
                raise InputError(f'another study is running in "{self.path}"; wait for it, or give another folder')
            for left in self.path.rglob(f"*{TEMPORARY}"):
                left.unlink(missing_ok=True)
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    """Takes a lock that the operating system gives back when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system; the atomic records are protection enough
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
