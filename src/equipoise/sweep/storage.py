"""Where trials are kept, and which process owns which.

A journal file, because it needs no locks of a database: SQLite's break on many network discs. Every process of a sweep holds
a lock of the operating system on a file of its own for as long as it lives. A trial whose owner's lock is free belongs to
nobody any more.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

__all__ = ["Owners", "open_journal", "turn"]


def open_journal(path: Path) -> JournalStorage:
    """Opens the journal, or begins it; a last line that a dying machine left half-written is taken away first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path.absolute()))
    backend = JournalFileBackend(str(path.absolute()), lock_obj=lock)
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
    """Who takes part in a sweep: one file per process, locked while it lives. A context manager for this process.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._file: IO[str] | None = None

    def __enter__(self) -> Owners:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self._path(self.own).open("a+")
        _lock(self._file, wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._path(self.own).unlink(missing_ok=True)
        self._file.close()

    def alive(self, owner: str) -> bool:
        """Whether that process still lives."""
        if owner == self.own:
            return True
        try:
            file = self._path(owner).open("r+")
        except OSError:
            return False
        with file:
            if not _lock(file, wait=False):
                return True
        self._path(owner).unlink(missing_ok=True)
        return False

    def others(self) -> list[str]:
        """All other processes that take part and still live."""
        names = [path.name.removesuffix(".lock") for path in self.folder.glob("*.lock")]
        return [name for name in names if name != self.own and self.alive(name)]

    def _path(self, owner: str) -> Path:
        return self.folder / f"{owner}.lock"


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """One process at a time: waits until it is this one's turn.

    Args:
        path: of the file that is locked meanwhile.
    """
    with path.open("a+") as file:
        _lock(file, wait=True)
        yield


def _lock(file: IO[str], *, wait: bool) -> bool:
    """Takes a lock that the operating system gives back when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: one process at a time has to do
        return True
    while True:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                return False
            time.sleep(0.02)
        else:
            return True
