"""Where trials are kept, and which process owns which.

A journal file, because it needs no locks of a database: SQLite's break on many network discs. Every process of a sweep holds
a lock of the operating system on a file of its own for as long as it lives. A trial whose owner's lock is free belongs to
nobody any more.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

__all__ = ["Owners", "open_journal"]


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
    """Who takes part in a sweep: one file per process, locked while it lives. A context manager for this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = FileLock(self._path(self.own))

    def __enter__(self) -> Owners:
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
