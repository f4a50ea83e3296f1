"""A part whose runs do not train by balanced gradients: each is a function from a row and a seed to numbers."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.cluster import Ray
from equipoise.progress import duration
from equipoise.store import RunStore
from equipoise.study.plan import Run
from equipoise.study.processes.calls import calls
from equipoise_papers.published import find_table
from equipoise_papers.reproduce.recipe import Asked, FoundRows, Part, RecipeRow, Setting

__all__ = ["RunsPart"]


class RunsPart(Part):
    """One JSON file per row and seed; what is complete is not run again."""

    @abstractmethod
    def run(self, setting: Setting, row: RecipeRow, seed: int, epochs: int | None, folder: Path) -> Mapping[str, float]:
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
        missing = [(row, seed) for seed in asked.seeds for row in wanted if self._lacks(folder, row, seed, asked)]
        self._say(asked, f"{self.name}: {len(wanted)} rows × {len(asked.seeds)} seeds; {len(missing) or 'nothing'} to do")
        for (row, seed), (values, took) in self._ran(missing, asked, folder):
            self._store(folder).keep(
                self._key(row, seed),
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

    def _ran(
        self, missing: Sequence[tuple[RecipeRow, int]], asked: Asked, folder: Path
    ) -> Iterator[tuple[tuple[RecipeRow, int], tuple[Mapping[str, float], float]]]:
        """Values and seconds of each run: one after the other here, or as many at a time as a cluster has room for."""
        work = [(asked.setting.within(self.subfolder), row, seed, asked.epochs, folder) for row, seed in missing]
        if not isinstance(asked.start, Ray) or not work:
            yield from ((own, self._timed(*one)) for own, one in zip(missing, work, strict=True))
            return
        with asked.start.connected():
            for number, found in calls(self._timed, work, asked.jobs or asked.start.at_a_time(), start=asked.start):
                yield missing[number], found

    def _timed(self, *work: Any) -> tuple[Mapping[str, float], float]:
        began = time.perf_counter()
        return dict(self.run(*work)), time.perf_counter() - began

    def collect(self, folder: Path) -> FoundRows:
        """Values of every row, one per seed, with summaries of the table's metrics."""
        table = find_table(self.table)
        found: dict[str, dict[str, list[float]]] = {}
        for record in self._store(folder).records():
            if record.get("row") not in {row.name for row in self.rows}:
                continue
            values = {name: float(value) for name, value in record["values"].items()}
            summed = {column: table.summed_up(values, column) for column in table.summaries if column != "MR"}
            for name, value in (*values.items(), *summed.items()):
                if value is not None:
                    found.setdefault(record["row"], {}).setdefault(name, []).append(value)
        return found

    def departures(self, folder: Path) -> tuple[str, ...]:
        records = self._store(folder).records()
        epochs = {record["epochs"] for record in records if record.get("epochs") is not None}
        small = any(record["identity"].get("smoke") for record in records)
        said = [f"{self.name}: {own} iterations instead of {self.workload.epochs}." for own in sorted(epochs)]
        return (*said, *([f"{self.name}: a small model on a few rows."] if small else []))

    def smoke(self, sample: Path, rows: Sequence[str] | None = None, steps: int = 2) -> FoundRows:
        setting = Setting(data=sample, smoke=True)
        return {
            row.name: {name: [float(value)] for name, value in self.run(setting, row, 0, steps, sample / "work").items()}
            for row in self.made(rows)
        }

    @staticmethod
    def _key(row: RecipeRow, seed: int) -> str:
        # A run's key is made for file names; the label is the row's.
        return Run(seed, task=row.name).key

    @staticmethod
    def _store(folder: Path) -> RunStore:
        # Each record says what was asked for, so that runs of a few epochs may lie beside those of all.
        return RunStore(folder)

    def _asked_for(self, asked: Asked) -> dict[str, Any]:
        return {"epochs": asked.epochs, "identity": self.identity(asked.setting)}

    def _lacks(self, folder: Path, row: RecipeRow, seed: int, asked: Asked) -> bool:
        return self._store(folder).find(self._key(row, seed), self._asked_for(asked)) is None

    @staticmethod
    def _say(asked: Asked, text: str) -> None:
        if asked.console is not None:
            asked.console.print(text, markup=False, highlight=False, soft_wrap=True)
