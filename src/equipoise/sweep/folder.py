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
from pathlib import Path
from typing import Any

from equipoise.store import RunStore
from equipoise.study.folder import Folder

__all__ = ["SweepFolder", "TrialFolder"]

SCHEMA = 1
_FREE = ("sampler", "pruner", "budget", "confirm", "front", "compare", "seeds")
"""What may change between two starts of a sweep."""


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
        shutil.rmtree(self.path / f".work-{owner}", ignore_errors=True)


class SweepFolder(RunStore):
    """A sweep's folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "sweep.json", what="sweep", schema=SCHEMA)
        self.trials = self.path / "trials"
        self.journal = self.path / "trials.journal"
        self.owners = self.path / "owners"
        self.turn = self.path / ".turn"

    @property
    def study(self) -> Path:
        """The study that the sweep belongs to."""
        return self.path.parent.parent

    def claim_for(self, asked: dict[str, Any]) -> None:
        """Makes the folder this sweep's, or checks that it is; to be called in one's turn.

        Raises:
            InputError: the folder holds another sweep; the message says what differs.
        """
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
