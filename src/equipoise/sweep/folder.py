"""What lies in a sweep's folder, and which process owns which trial.

::

    <study>/                 the folder of a study: baselines, methods and confirmed trials, run by run
        sweeps/<name>/
            sweep.json       what was asked for; the baseline on the validation split; what was confirmed
            trials.journal   Optuna's journal
            trials/          runs of trials: one JSON file per finished run, failed/, logs/
            owners/          one locked file per living process
            report.md, report.html, pictures/

The journal is a file, because it needs no locks of a database: SQLite's break on many network discs. Every process of a sweep
holds a lock of the operating system on a file of its own for as long as it lives. A trial whose owner's lock is free belongs
to nobody any more.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from equipoise.errors import InputError
from equipoise.reading import Unreadable, anything, fields, listed, maybe, named, number, regular, text, whole
from equipoise.store import RunStore, refuse_links, writing
from equipoise.study.folder import Folder

__all__ = ["Owners", "SweepFolder", "TrialFolder", "open_journal"]

SCHEMA = 1
_FREE = ("sampler", "pruner", "budget", "confirm", "front", "compare", "seeds")
"""What may change between two starts of a sweep."""


_OWNER = re.compile(r"\d+-[0-9a-f]{8}")
"""The name of a process that takes part: its number and some chance."""


class TrialFolder(Folder):
    """Runs of trials; several processes write here at a time, each with a place of its own for what is under way."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(path)
        self._owner = owner

    @property
    def work(self) -> Path:
        """Where this process keeps what its runs need."""
        return self.path / f".work-{self._owner}"

    def clear(self, owner: str) -> None:
        """Takes away what a process that is gone left under way."""
        if not _OWNER.fullmatch(owner):
            return
        shutil.rmtree(self.path / f".work-{owner}", ignore_errors=True)


_SWEEP = fields(
    {
        "problem": anything,
        "method": text,
        "swept": named(text),
        "objectives": listed(text),
        "seed": whole,
        "epochs": whole,
        "sampler": text,
        "pruner": text,
        "front": listed(text, 2),
        "compare": listed(text),
        "seeds": listed(whole),
        "baseline": maybe(named(maybe(number))),
        "confirmed": listed(whole),
    }
)
"""What a sweep's folder remembers."""


class SweepFolder(RunStore):
    """A sweep's folder."""

    parts = (".lock", ".turn", "trials", "trials/runs", "trials/failed", "trials/logs", "owners", "trials.journal", "pictures")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "sweep.json", what="sweep", schema=SCHEMA)
        self.trials = self.path / "trials"
        self.journal = self.path / "trials.journal"
        self.owners = self.path / "owners"
        self.turn = self.path / ".turn"

    def wrong(self, known: dict[str, Any]) -> str:
        """What is wrong with ``sweep.json``, in words."""
        return _SWEEP(known)

    @property
    def study(self) -> Path:
        """The study that the sweep belongs to."""
        return self.path.parent.parent

    def claim_for(self, asked: dict[str, Any]) -> None:
        """Makes the folder this sweep's, or checks that it is; to be called in one's turn.

        Raises:
            InputError: the folder holds another sweep; the message says what differs.
        """
        refuse_links(self.study, [str(self.path.relative_to(self.study))])
        refuse_links(self.path, self.parts)
        self.claim(
            {"baseline": None, "confirmed": [], **asked},
            free=_FREE,
            kept=("baseline", "confirmed"),
            advice="give another --name or --folder, or start it as it was (budget, seeds, sampler, pruner and compared "
            "methods may change)",
        )

    def tidy(self) -> None:
        """Takes away half-written files; only when no other process takes part."""
        super().tidy()
        Folder(self.trials).tidy()


def open_journal(path: Path) -> JournalStorage:
    """Opens the journal, or begins it; a last line that a dying machine left half-written is taken away first.

    Raises:
        InputError: in its place there is a link, or what is no regular file.
        StorageError: it cannot be written.
    """
    refuse_links(path.parent, [path.name])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            with regular(path):
                pass
        except Unreadable as error:
            raise InputError(f'"{path}" cannot be read as a journal of trials ({error}); give another folder') from error
    with writing(path):
        lock = JournalFileSymlinkLock(str(path.absolute()))
        backend = JournalFileBackend(str(path.absolute()), lock_obj=lock)
        stale = path.with_name(f"{path.name}.lock")
        if stale.is_symlink() and not stale.exists():
            stale.unlink(missing_ok=True)  # it came with a folder from elsewhere, and Optuna would wait for it forever
        lock.acquire()
        try:
            _mend(path)
        finally:
            lock.release()
        return JournalStorage(backend)


def _mend(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


class Owners:
    """Who takes part in a sweep: one file per process, locked while it lives. A context manager for this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = FileLock(self._path(self.own))

    def __enter__(self) -> Owners:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # where locked files cannot be removed, others do it when they find it free
            self._path(self.own).unlink()
        self._lock.release()

    def alive(self, owner: str) -> bool:
        """Whether that process still lives."""
        if owner == self.own:
            return True
        if not _OWNER.fullmatch(owner):
            return False  # a journal from elsewhere may name any path
        path = self._path(owner)
        if not path.exists():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
        return False

    def others(self) -> list[str]:
        """All other processes that take part and still live."""
        names = [path.name.removesuffix(".lock") for path in self.folder.glob("*.lock")]
        return [name for name in names if name != self.own and self.alive(name)]

    def _path(self, owner: str) -> Path:
        return self.folder / f"{owner}.lock"
