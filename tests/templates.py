"""One process that runs are forked from, for the studies of many tests.

A study starts such a process for itself, which imports torch; that takes longer than all runs of a small problem. That it
does, and ends it whatever happens, is tested in ``tests/study/test_study.py`` and ``test_interruption.py``, with processes of
their own.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60  # seconds until a run that was killed must be gone


class _Borrowed:
    """A launcher that is given back instead of closed."""

    def __init__(self, own: Any, give_back: Callable[[], None]) -> None:
        self._own = own
        self._give_back = give_back
        self._running: set[str] = set()
        self.messages = self

    def get(self, timeout: float) -> dict[str, Any]:
        message: dict[str, Any] = self._own.messages.get(timeout=timeout)
        if "exit" in message:
            self._running.discard(message["run"])
        return message

    def start(self, key: str, payload: Path, log: Path) -> None:
        self._running.add(key)
        self._own.start(key, payload.absolute(), log)

    def stop(self, key: str) -> None:
        self._own.stop(key)

    def close(self) -> None:
        for key in self._running:
            self._own.stop(key)
        end = time.monotonic() + PATIENCE
        while self._running and time.monotonic() < end:
            try:
                self.get(timeout=1)
            except queue.Empty:
                continue
        assert not self._running, f"the runs {self._running} did not end"
        self._give_back()


class Templates:
    """Keeps one launcher for each list of modules that runs want imported."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[tuple[str, ...], Any] = {}
        self._lent: set[tuple[str, ...]] = set()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it, studies of this process fork their runs from what is kept."""
        with pytest.MonkeyPatch.context() as patch:
            for asking in ("pool", "calls"):
                patch.setattr(f"equipoise.study.processes.{asking}.launcher", self._launcher)
            yield

    def close(self) -> None:
        """Ends the processes."""
        for own in self._kept.values():
            own.close()

    def _launcher(self, start: str, preload: Sequence[str], errors: Path) -> Any:
        from equipoise.study.processes.launchers import launcher

        # One that has more imported will do as well; torch is what each of them has.
        wanted = set(preload) - {"torch"}
        key = next((own for own in self._kept if wanted <= set(own) and own not in self._lent), tuple(preload))
        if start != "auto" or key in self._lent:
            return launcher(start, preload, errors)
        if key not in self._kept:
            self._kept[key] = launcher(start, preload, self._folder / f"{len(self._kept)}.log")
        self._lent.add(key)
        return _Borrowed(self._kept[key], lambda: self._lent.remove(key))
