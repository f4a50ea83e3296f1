"""What a comparison of fronts found, as points and hypervolumes over seeds."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError, require
from equipoise.metrics import Metric, spread
from equipoise.pareto import hypervolume, nondominated
from equipoise.reading import Kind, anything, fields, listed, maybe, named, number, text, whole
from equipoise.store import RunStore

__all__ = ["FrontsOutcome", "Interval"]

Array = NDArray[np.float64]

_METRICS = named(maybe(number))
_RECORD: Kind = fields(
    {
        "method": text,
        "seed": whole,
        "parameters": whole,
        "wall_seconds": number,
        "versions": named(text),
        "fronts": listed(
            fields(
                {
                    "epochs": whole,
                    "steps": whole,
                    "seconds": number,
                    "points": listed(fields({"preference": listed(number), "validation": _METRICS, "test": _METRICS})),
                }
            )
        ),
    }
)
_FRONTS: Kind = fields(
    {
        "problem": anything,
        "epochs": whole,
        "models": whole,
        "members": whole,
        "balancer": text,
        "methods": named(anything),
        "seeds": listed(whole),
        "schema": whole,
    }
)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval (Student's t).

    Attributes:
        mean: over seeds.
        half: half of the interval's width; ``nan`` for one seed.
        n: seeds.
    """

    mean: float
    half: float
    n: int

    @classmethod
    def of(cls, values: list[float]) -> Interval:
        """Of one value per seed.

        Example:
            >>> own = Interval.of([1.0, 2.0, 3.0])
            >>> own.mean, round(own.half, 3)
            (2.0, 2.484)
        """
        found = spread(values)
        if found.n < 2:
            return cls(found.mean, math.nan, found.n)
        quantile = float(require("scipy.stats", "study").t.ppf(0.975, found.n - 1))
        return cls(found.mean, quantile * found.std / math.sqrt(found.n), found.n)

    def text(self, digits: int = 3, *, sign: bool = False) -> str:
        """Such as ``0.812 ± 0.030``."""
        shown = f"{self.mean:{'+' if sign else ''}.{digits}f}".replace("-", "−")
        return shown if math.isnan(self.half) else f"{shown} ± {self.half:.{digits}f}"


class FrontsOutcome:
    """Everything that a folder of a comparison holds; reads it once.

    Points are those of the test split, lower is better in every entry: metrics of which higher is better are turned round. Of
    a method's members those count that no other dominates on the *validation* split. Hypervolumes are shares of a box: from the
    best to the worst value of each metric over what counts of all methods and seeds, the worst moved outwards by a tenth.

    Args:
        folder: of a :class:`~equipoise.fronts.Fronts`.

    Attributes:
        methods: of which there are runs, in the order asked for.
        seeds: asked for.
        metrics: the first of each task.
        box: ideal and reference point.
        unread: files of runs that are left out, and why.

    Raises:
        InputError: it is no such folder, or holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.store = RunStore(folder, "fronts.json", what="comparison of fronts", schema=1)
        self.settings = self.store.configuration()
        if said := _FRONTS(self.settings):
            raise InputError(f'"{self.store.about}" is damaged: it{said}; give another folder')
        described = self.settings["problem"]
        every = [Metric(**own) for own in described["metrics"]]
        self.metrics = [next(own for own in every if own.task == task) for task in described["tasks"]]
        self.seeds: tuple[int, ...] = tuple(self.settings["seeds"])
        self._runs: dict[str, dict[int, dict[str, Any]]] = {}
        self.unread: dict[str, str] = {}
        records, faults = self.store.read()
        for path, record in records.items():
            said = _RECORD(record)
            if said or record["method"] not in self.settings["methods"] or len(record["fronts"]) != self.settings["models"]:
                self.unread[path.name] = said or "it is of another comparison"
                continue
            self._runs.setdefault(record["method"], {})[record["seed"]] = record
        self.unread |= {path.name: said for path, said in faults.items()}
        self.methods: tuple[str, ...] = tuple(text for text in self.settings["methods"] if text in self._runs)
        if not self.methods:
            raise InputError(f'no run of the comparison in "{self.store.path}" has finished; run it to its end')
        self.box = self._found_box()

    def runs(self, method: str) -> dict[int, dict[str, Any]]:
        """Seed → record."""
        return self._runs[method]

    def points(self, method: str, seed: int, part: int = -1, *, split: str = "test", chosen: bool = True) -> Array:
        """``[n, K]``: the members that count after a part of training, or all of them."""
        own = self._runs[method][seed]["fronts"][part]["points"]
        turned = {name: self._turned(own, name) for name in ("validation", split)}
        return turned[split][nondominated(turned["validation"])] if chosen else turned[split]

    def volume(self, points: Array) -> float:
        """The hypervolume of points, as a share of the box."""
        ideal, reference = self.box
        size = float(np.prod(reference - ideal))
        return hypervolume(points, reference) / size if size > 0 else math.nan

    def hypervolumes(self, method: str, part: int = -1) -> dict[int, float]:
        """Seed → hypervolume after a part of training."""
        return {seed: self.volume(self.points(method, seed, part)) for seed in sorted(self._runs[method])}

    def against(self, method: str, other: str = "sweep") -> dict[int, float]:
        """Seed → hypervolume minus the other's, on the seeds that both have."""
        own, theirs = self.hypervolumes(method), self.hypervolumes(other) if other in self._runs else {}
        return {seed: own[seed] - theirs[seed] for seed in own if seed in theirs}

    def _turned(self, points: list[dict[str, Any]], split: str) -> Array:
        signs = np.array([metric.sign for metric in self.metrics])
        rows = [[point[split][metric.name] for metric in self.metrics] for point in points]  # None, which is nan, if not finite
        return signs * np.array(rows, dtype=np.float64).reshape(-1, len(self.metrics))

    def _found_box(self) -> tuple[Array, Array]:
        every = np.concatenate([self.points(method, seed) for method, own in self._runs.items() for seed in own])
        if not len(every):
            raise InputError(f'all runs in "{self.store.path}" ended in values that are not finite')
        ideal, worst = every.min(axis=0), every.max(axis=0)
        room = np.where(worst > ideal, worst - ideal, np.maximum(np.abs(worst), 1e-12))
        return ideal, worst + 0.1 * room
