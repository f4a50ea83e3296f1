"""A part whose runs are no training by balanced gradients: each is a function from a row and a seed to numbers."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.store import read_json, write_json
from equipoise.study.plan import Run
from equipoise.study.progress import duration
from equipoise_papers.published import find_table
from equipoise_papers.reproduce.recipe import Asked, Found, Part, Row, Setting

__all__ = ["RunsPart"]


class RunsPart(Part):
    """One JSON file a row and seed; what is complete is not run again."""

    @abstractmethod
    def run(self, setting: Setting, row: Row, seed: int, epochs: int | None, folder: Path) -> Mapping[str, float]:
        """One run: column → value.

        Args:
            setting: the machine.
            row: what is run.
            seed: of everything random.
            epochs: passes over the data, or iterations; ``None`` for as many as the paper's.
            folder: of the part, for caches.
        """

    @abstractmethod
    def identity(self, setting: Setting) -> dict[str, Any]:
        """What runs must have in common to stand in one folder."""

    def execute(self, asked: Asked, folder: Path) -> None:
        """Runs what the folder lacks, one after the other."""
        wanted = self.made(asked.rows)
        missing = [(row, seed) for seed in asked.seeds for row in wanted if self._read(folder, row, seed, asked) is None]
        self._say(asked, f"{self.name}: {len(wanted)} rows × {len(asked.seeds)} seeds; {len(missing) or 'nothing'} to do")
        for row, seed in missing:
            began = time.perf_counter()
            values = self.run(asked.setting.within(self.subfolder), row, seed, asked.epochs, folder)
            took = time.perf_counter() - began
            write_json(
                self._file(folder, row, seed),
                {
                    "row": row.name,
                    "method": row.method,
                    "seed": seed,
                    "values": dict(values),
                    "seconds": took,
                    **self._asked_for(asked),
                },
            )
            self._say(asked, f"{row.name}, seed {seed}: {duration(took)}")

    def collect(self, folder: Path) -> Found:
        """Values of every row, one a seed, with summaries of the table's metrics."""
        table = find_table(self.table)
        found: dict[str, dict[str, list[float]]] = {}
        for path in sorted((folder / "runs").glob("*.json")):
            record = read_json(path)
            if not isinstance(record, dict) or record.get("row") not in {row.name for row in self.rows}:
                continue
            values = {name: float(value) for name, value in record["values"].items()}
            summed = {column: table.summed_up(values, column) for column in table.summaries if column != "MR"}
            for name, value in (*values.items(), *summed.items()):
                if value is not None:
                    found.setdefault(record["row"], {}).setdefault(name, []).append(value)
        return found

    def departures(self, folder: Path) -> tuple[str, ...]:
        records = [read_json(path) for path in sorted((folder / "runs").glob("*.json"))]
        epochs = {record["epochs"] for record in records if isinstance(record, dict) and record.get("epochs") is not None}
        small = any(isinstance(record, dict) and record["identity"].get("smoke") for record in records)
        said = [f"{self.name}: {own} iterations instead of {self.workload.epochs}." for own in sorted(epochs)]
        return (*said, *([f"{self.name}: a small model on a few rows."] if small else []))

    def smoke(self, sample: Path, rows: Sequence[str] | None = None, steps: int = 2) -> Found:
        setting = Setting(data=sample, smoke=True)
        return {
            row.name: {name: [float(value)] for name, value in self.run(setting, row, 0, steps, sample / "work").items()}
            for row in self.made(rows)
        }

    def _file(self, folder: Path, row: Row, seed: int) -> Path:
        # A run's key is made for file names; the label is the row's.
        return folder / "runs" / f"{Run(seed, task=row.name).key}.json"

    def _asked_for(self, asked: Asked) -> dict[str, Any]:
        return {"epochs": asked.epochs, "identity": self.identity(asked.setting)}

    def _read(self, folder: Path, row: Row, seed: int, asked: Asked) -> dict[str, Any] | None:
        record = read_json(self._file(folder, row, seed))
        same = isinstance(record, dict) and all(record.get(key) == value for key, value in self._asked_for(asked).items())
        return record if same else None

    @staticmethod
    def _say(asked: Asked, text: str) -> None:
        if asked.console is not None:
            asked.console.print(text, markup=False, highlight=False, soft_wrap=True)
