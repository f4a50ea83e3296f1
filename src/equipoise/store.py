"""Work that takes long, kept in folders: files that are whole or not there, locks, and runs that are never done twice.

Whoever has runs to do names them, and asks for each; those that the folder holds are not made again::

    store = RunStore(folder, "settings.json", what="search")
    with store.locked():                                 # left out where one process is enough
        store.claim({"steps": 100, "lr": 0.1})           # refuses a folder that holds runs of other settings
        for seed in range(3):
            key = f"adam-seed{seed}"
            record = store.find(key) or store.keep(key, train(seed))  # a dictionary, as JSON has it

What is stored is JSON: ``plain`` says what becomes of other values. A run's name is a file's name. For single files there are
:func:`write_whole`, :func:`write_json` and :func:`replacing`, and for a lock without a folder of runs :func:`locked`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise import reading
from equipoise.errors import EquipoiseError, InputError, StorageError
from equipoise.reading import Unreadable

__all__ = [
    "RunStore",
    "cache_folder",
    "locked",
    "of_schema",
    "plain",
    "read_json",
    "refuse_links",
    "replacing",
    "rounded",
    "write_json",
    "write_whole",
    "writing",
]

TEMPORARY = ".part"
"""Ends the name of a file that is being written; nobody reads such a file."""

_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
_WRITER = re.compile(rf"\.(\d+)\.\d+\.([A-Za-z0-9-]*){re.escape(TEMPORARY)}$")
_ABANDONED = 86_400.0  # seconds after which the half-written file of another machine is taken for left behind


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Says in one line that a file or folder cannot be written, whatever the reason.

    Raises:
        StorageError: the system refused.
    """
    try:
        yield
    except EquipoiseError:
        raise
    except OSError as error:
        raise StorageError(path, error) from error
    except RuntimeError as error:
        # All that torch says of a full disk.
        if not any(sign in str(error) for sign in ("inline_container", "PytorchStreamWriter", "iostream")):
            raise
        raise StorageError(path, error) from error


def cache_folder() -> Path:
    """``$EQUIPOISE_CACHE`` if that is set, otherwise ``equipoise`` in the user's folder of caches."""
    own = os.environ.get("EQUIPOISE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equipoise"


def refuse_links(root: Path, parts: Iterable[str]) -> None:
    """Refuses links below a folder to where nobody said that anything should be written; the folder itself may be one.

    Raises:
        InputError: one of the parts, which are paths relative to the root, is a link.
    """
    for part in parts:
        path = root
        for piece in Path(part).parts:
            path = path / piece
            if path.is_symlink():
                raise InputError(f'"{path}" is a link, and nothing is written through it; take it away, or give another folder')


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file beside the target to write to, which takes the target's place at the end.

    A process or machine that dies in between leaves the old file, or none, and a ``.part`` that is never read.

    Args:
        path: the target; its folder is made if need be.

    Raises:
        StorageError: there is no space, no permission, or no such folder can be.

    Example:
        >>> from tempfile import mkdtemp
        >>> target = Path(mkdtemp()) / "whole"
        >>> with replacing(target) as part:
        ...     written = part.write_text("all of it")
        >>> target.read_text()
        'all of it'
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.{_HOST}{TEMPORARY}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):  # such as that a part of the path is a file, which was the error
                part.unlink()
    # The directory's entry has to reach the disk, too; where directories cannot be opened, the rename has to do.
    with contextlib.suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_whole(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Writes a file that is whole or not there: its content is forced to disk before it gets its name.

    Args:
        path: of the file.
        content: text is written in UTF-8.
        private: whether nobody else may read or change it, whatever this user's habits.

    Raises:
        StorageError: there is no space, no permission, or no such folder can be.
    """
    with replacing(path) as part, part.open("wb") as file:
        if private:
            part.chmod(0o600)
        # Halves of characters, as names of files may have them, become what JSON and Python write for them.
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes plain JSON; numbers that are not finite become ``null``, which every reader understands."""
    write_whole(path, json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or ``None`` where there is no such file or it is not whole."""
    try:
        return reading.read_json(path)
    except Unreadable:
        return None


@contextlib.contextmanager
def of_schema(path: str | os.PathLike[str], schema: int, what: str) -> Iterator[dict[str, Any]]:
    """The content of a JSON file whose ``schema`` is that, to be made use of in the body.

    Raises:
        InputError: it is no such file, or the body does not find what it needs in it.
    """
    try:
        known = reading.read_json(path)
        if not isinstance(known, dict) or known.get("schema") != schema:
            raise Unreadable(f"its schema is not {schema}")
        yield known
    except KeyError as error:
        raise InputError(f'"{path}" holds no {what} of this version of equipoise: it lacks {error}') from error
    except (Unreadable, TypeError, ValueError, AttributeError) as error:
        raise InputError(f'"{path}" holds no {what} of this version of equipoise: {error}') from error


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold; whatever it does not know becomes its ``repr``."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return repr(value)


def rounded(value: Any, digits: int = 6) -> Any:
    """Rounds all numbers in lists and dictionaries to so many significant digits, which keeps files small.

    Example:
        >>> rounded({"loss": (0.123456789, 1234567.8), "step": 1234567})
        {'loss': [0.123457, 1234570.0], 'step': 1234567}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry, digits) for entry in value]
    return value


@contextlib.contextmanager
def locked(path: Path, *, busy: str = "", waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Keeps other processes out; the operating system gives the lock back when the process ends, however it ends.

    Args:
        path: of the file that is locked meanwhile; made if need be.
        busy: what to say if another has it, in place of waiting.
        waiting: called again and again while another has it, for instance to say so; it should sleep a little.

    Raises:
        InputError: another has it, and there is something to say and no ``waiting``.
        StorageError: the file cannot be made.
    """
    # A dependency of torch's, but only who locks should wait for it.
    from filelock import FileLock, Timeout

    refuse_links(path.parent, [path.name])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)

    def got() -> bool:
        with writing(path):
            try:
                lock.acquire(blocking=False)
            except Timeout:  # one of the operating system's errors as well
                return False
        return True

    while not got():
        if waiting is not None:
            waiting()
        elif busy:
            raise InputError(busy)
        else:
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.release()


class RunStore:
    """A folder of runs, each of which is done once: whoever is interrupted continues where it stopped.

    ::

        <about>           what was asked for, see :meth:`claim`
        runs/<key>.json   one per finished run

    Args:
        path: the folder; it need not be there.
        about: name of the file that remembers what was asked for.
        what: what the runs make up together, for messages.
        schema: counts up when what is written changes its meaning; a folder of another schema is refused. ``None`` for none.

    Example:
        >>> from tempfile import mkdtemp
        >>> store = RunStore(mkdtemp(), "settings.json", what="search")
        >>> asked = store.claim({"steps": 100})
        >>> [store.find("seed0") or store.keep("seed0", {"loss": loss}) for loss in (0.5, 7.0)]
        [{'loss': 0.5}, {'loss': 0.5}]
        >>> store.claim({"steps": 200})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        equipoise.errors.InputError: the folder "..." holds a search of another configuration (steps 100 there, 200 now); ...
    """

    parts: tuple[str, ...] = (".lock", "runs")
    """What is written to below the folder, and so must be no link."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        about: str = "settings.json",
        *,
        what: str = "set of runs",
        schema: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.about = self.path / about
        self.what = what
        self.schema = schema

    def configuration(self) -> dict[str, Any]:
        """What the folder remembers.

        Raises:
            InputError: it is not such a folder, or of another schema.
        """
        refused = f'"{self.path}" is not the folder of a {self.what}: it holds no readable {self.about.name}'
        try:
            known = reading.read_json(self.about)
        except Unreadable as error:
            raise InputError(f"{refused} ({error})") from error
        if not isinstance(known, dict):
            raise InputError(refused)
        if self.schema is not None and known.get("schema") != self.schema:
            raise InputError(
                f'the {self.what} in "{self.path}" was written by another version of equipoise (schema '
                f"{_short(known.get('schema'))}, this one reads {self.schema}); use another folder"
            )
        if said := self.wrong(known):
            raise InputError(f"{refused} ({self.about.name}{said})")
        return known

    def wrong(self, known: dict[str, Any]) -> str:
        """What is wrong with what the folder remembers, in words that follow the file's name; a subclass may know."""
        return ""

    def remember(self, **values: Any) -> None:
        """Adds to what the folder remembers, or replaces parts of it."""
        write_json(self.about, self.configuration() | values)

    def claim(
        self,
        asked: Mapping[str, Any],
        *,
        free: Sequence[str] = (),
        kept: Sequence[str] = (),
        growing: Sequence[str] = (),
        shared: bool = False,
        advice: str = "give another folder, or start with the configuration it has",
    ) -> dict[str, Any]:
        """Makes the folder that of what is asked for, or checks that it is.

        Args:
            asked: what has to stay as it is, but for the three following.
            free: entries that may change.
            kept: entries that the folder knows better, such as what was found so far.
            growing: lists and dictionaries that are added to; what a dictionary has under a key may not change.
            shared: whether files of others may lie in the folder already.
            advice: what the message of a refusal ends with.

        Returns:
            What the folder remembers now.

        Raises:
            InputError: the folder cannot be made, it holds something else, or it is that of other runs; the message says
                what differs.
        """
        now: dict[str, Any] = plain(({} if self.schema is None else {"schema": self.schema}) | dict(asked))
        self.make()
        if self.about.exists():
            known = self.configuration()
            differing = [
                said
                for key in now
                if key not in free and key not in kept
                for said in _differences(key, known.get(key), now[key], growing=key in growing)
            ]
            if differing:
                raise InputError(
                    f'the folder "{self.path}" holds a {self.what} of another configuration ({"; ".join(differing)}); {advice}'
                )
            now |= {key: known[key] for key in kept if key in known}
            for key in growing:
                before = known.get(key, type(now[key])())
                if type(before) is not type(now[key]):
                    raise InputError(f'"{self.about}" is damaged: {key} is {_short(before)}; give another folder')
                now[key] = before | now[key] if isinstance(before, dict) else sorted({*before, *now[key]})
        elif not shared and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise InputError(f'"{self.path}" holds files but no {self.what}; give an empty or new folder')
        write_json(self.about, now)
        return now

    def make(self) -> None:
        """Makes the folder, unless it is there.

        Raises:
            InputError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f'the folder "{self.path}" cannot be made ({error.strerror}); give another') from None

    def file(self, key: str) -> Path:
        """The file of a finished run."""
        return self.path / "runs" / f"{key}.json"

    def fault(self, record: Any) -> str:
        """Why a record does not count, in words; nothing if it is whole. A subclass may ask for more."""
        return "" if isinstance(record, dict) else "it is no record of a run"

    def find(self, key: str, having: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """What a run left, or ``None`` if it is still to be done.

        Args:
            key: the run's name.
            having: what the record must hold to count, beside being whole.
        """
        record = read_json(self.file(key))
        wanted = plain(having or {})
        return record if not self.fault(record) and all(record.get(name) == value for name, value in wanted.items()) else None

    def keep(self, key: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps what a run left, and gives it as it will be read."""
        stored: dict[str, Any] = plain(record)
        write_json(self.file(key), stored)
        return stored

    def records(self) -> list[dict[str, Any]]:
        """All whole records, in the order of their files' names."""
        return list(self.read()[0].values())

    def read(self) -> tuple[dict[Path, dict[str, Any]], dict[Path, str]]:
        """All whole records by their files, in the order of the files' names, and why each other file does not count."""
        records, faults = {}, {}
        for path in sorted((self.path / "runs").glob("*.json")):
            try:
                record = reading.read_json(path)
                said = self.fault(record)
            except Unreadable as error:
                said = str(error)
            if said:
                faults[path] = said
            else:
                records[path] = record
        return records, faults

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], object] | None = None) -> Iterator[None]:
        """Keeps a second process out of the folder, and clears away what a killed one left half-written.

        Args:
            waiting: called again and again while another is at it; left out, that is an error.

        Raises:
            InputError: another is running in the folder.
        """
        self.make()
        refuse_links(self.path, self.parts)
        busy = f'another {self.what} is running in "{self.path}"; wait for it, or give another folder'
        with locked(self.path / ".lock", busy=busy, waiting=waiting):
            self.tidy()
            yield

    def tidy(self) -> None:
        """Takes away half-written files whose writers are gone; who only writes a report, say, holds no lock."""
        for pattern in (f"*{TEMPORARY}", f"*/*{TEMPORARY}"):  # deeper down are folders with locks of their own
            for left in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    if not _being_written(left):
                        left.unlink()


def _being_written(part: Path) -> bool:
    """Whether somebody may still be writing a file that has no name yet."""
    found = _WRITER.search(part.name)
    if found is None:
        return False
    if found[2] != _HOST:
        return time.time() - part.lstat().st_mtime < _ABANDONED
    if os.name != "posix":  # there a signal would end the process, and the system refuses to take away what is open
        return False
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _differences(name: str, there: Any, now: Any, *, growing: bool) -> list[str]:
    """What has changed of one entry, in words; dictionaries entry by entry."""
    if isinstance(there, dict) and isinstance(now, dict):
        keys = [key for key in now if key in there] if growing else dict.fromkeys((*there, *now))
        return [said for key in keys for said in _differences(f"{name} {key}", there.get(key), now.get(key), growing=False)]
    return [] if growing or there == now else [f"{name} {_short(there)} there, {_short(now)} now"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
