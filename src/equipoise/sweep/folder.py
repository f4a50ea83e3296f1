"""What lies in a sweep's folder.

::

    <study>/                 the folder of a study: baselines, methods and confirmed trials, run by run
        sweeps/<name>/
            sweep.json       what was asked for; the baseline on the validation split; what was confirmed
            trials.journal   Optuna's journal
            trials/          runs of trials: one JSON file per finished run, failed/, logs/
            owners/          one locked file per living process
            report.md, report.html, pictures/
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.errors import InputError
from equipoise.study.files import TEMPORARY, plain, read_json, write_json
from equipoise.study.folder import Folder

__all__ = ["SweepFolder", "TrialFolder"]

SCHEMA = 1
_FREE = ("sampler", "pruner", "budget", "confirm", "front", "baseline", "confirmed", "compare", "seeds")
"""What may change between two starts of a sweep."""


class TrialFolder(Folder):
    """Runs of trials; several processes write here at a time, each with a place of its own for what is under way.

    Args:
        path: where it is.
        owner: names this process.
    """

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(path)
        self._owner = owner

    @property
    def work(self) -> Path:
        """Where this process keeps what its runs need."""
        return self.path / f".work-{self._owner}"

    def clear(self, owner: str) -> None:
        """Takes away what a process that is gone left under way."""
        shutil.rmtree(self.path / f".work-{owner}", ignore_errors=True)


class SweepFolder:
    """A sweep's folder.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.trials = self.path / "trials"
        self.journal = self.path / "trials.journal"
        self.owners = self.path / "owners"
        self.turn = self.path / ".turn"

    @property
    def study(self) -> Path:
        """The study that the sweep belongs to."""
        return self.path.parent.parent

    def read(self) -> dict[str, Any]:
        """What the folder remembers.

        Raises:
            InputError: it is not the folder of a sweep.
        """
        known = read_json(self.path / "sweep.json")
        if not isinstance(known, dict) or known.get("schema") != SCHEMA:
            raise InputError(f'"{self.path}" is not the folder of a sweep: it holds no sweep.json that can be read')
        return known

    def claim(self, asked: Mapping[str, Any]) -> None:
        """Makes the folder this sweep's, or checks that it is; to be called in one's turn.

        Raises:
            InputError: the folder holds another sweep; the message says what differs.
        """
        now = plain({"schema": SCHEMA, "baseline": None, "confirmed": [], **asked})
        if (self.path / "sweep.json").exists():
            known = self.read()
            differences = [
                f"{key} {known.get(key)!r} there, {now[key]!r} now"
                for key in now
                if key not in _FREE and known.get(key) != now[key]
            ]
            if differences:
                raise InputError(
                    f'"{self.path}" holds another sweep ({"; ".join(differences)}); give another --name or --folder, or start '
                    "it as it was (budget, seeds, sampler, pruner and compared methods may change)"
                )
            now |= {key: known[key] for key in ("baseline", "confirmed")}
        self.write(now)

    def remember(self, **values: Any) -> None:
        """Adds to what the folder remembers."""
        self.write(self.read() | values)

    def write(self, values: dict[str, Any]) -> None:
        """Replaces what the folder remembers."""
        write_json(self.path / "sweep.json", values)

    def tidy(self) -> None:
        """Takes away half-written files; only when no other process takes part."""
        for left in self.path.rglob(f"*{TEMPORARY}"):
            left.unlink(missing_ok=True)
