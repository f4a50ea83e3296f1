"""The records of a study's folder, as numbers over seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.errors import InputError
from equipoise.metrics import Comparison, Metric, Spread, delta_m, holm, mean_rank, paired_comparison, spread
from equipoise.metrics.metric import mean, unit_of
from equipoise.study.folder import Folder
from equipoise.study.names import distinct, without_teleport
from equipoise.study.plan import key_of
from equipoise.study.records import Record
from equipoise.teleport import TeleportReport

__all__ = ["Discrepancy", "Results", "discrepancy", "final_losses", "relative_losses"]

SPLIT = "test"
"""The split that all reported numbers are from."""


class Results:
    """Everything a study has found out so far; reads the folder once.

    All metrics are those of the test split, after the last epoch or as the problem's ``reported`` has it.

    Args:
        folder: a study's folder.

    Attributes:
        problem: name of the problem.
        tasks: the tasks in order.
        metrics: the metrics in order.
        epochs: epochs per run.
        reported: which of them the metrics are from, in words.
        methods: labels of the methods of which at least one run is there, in the order in which they were asked for.
        seeds: the seeds that occur.
        failures: key of each run that failed → the file with its traceback.
        unread: each file in ``runs`` that is no record of this study → why, in words; nothing of it is in any number.

    Raises:
        InputError: not the folder of a study.
    """

    def __init__(self, folder: str | os.PathLike[str] | Folder) -> None:
        self.folder = folder if isinstance(folder, Folder) else Folder(folder)
        self.configuration = self.folder.configuration()
        described = self.configuration["problem"]
        self.problem: str = described["name"]
        self.tasks: tuple[str, ...] = tuple(described["tasks"])
        self.metrics: tuple[Metric, ...] = tuple(Metric(**metric) for metric in described["metrics"])
        self.epochs: int = self.configuration["epochs"]
        self.reported: str = described.get("reported", "last epoch")
        self.failures: dict[str, Path] = self.folder.failures()
        self._runs: dict[str, dict[int, Record]] = {}
        self._baselines: dict[str, dict[int, Record]] = {task: {} for task in self.tasks}
        records, self.unread = self.folder.read()
        own: dict[tuple[str, int], Path] = {}
        # The file that is named as the run comes first, so that a copy of another name counts in nobody's place.
        for path, record in sorted(records.items(), key=lambda entry: entry[0].stem != _key(entry[1])):
            run = record["run"]
            if record["epochs"] != self.epochs:
                continue
            if said := self._foreign(record):
                self.unread[path] = said
                continue
            first = own.setdefault((run["method"], run["seed"]), path)
            if first != path:
                self.unread[path] = f"it is the run of {first.name} once more"
                continue
            where = self._runs.setdefault(run["method"], {}) if run.get("task") is None else self._baselines[run["task"]]
            where[run["seed"]] = record
        self.methods: tuple[str, ...] = tuple(label for label in self.configuration["methods"] if label in self._runs)
        self.seeds: tuple[int, ...] = tuple(
            sorted({seed for runs in (*self._runs.values(), *self._baselines.values()) for seed in runs})
        )

    def _foreign(self, record: Record) -> str:
        """Why a whole record cannot be one of this study, in words."""
        task = record["run"].get("task")
        if task is None and record["run"]["method"] not in self.configuration["methods"]:
            return f'the study has no method "{record["run"]["method"]}"'
        named = {*([] if task is None else [task]), *(one for own in record.get("teleports") or [] for one in own["tasks"])}
        for one in sorted(named):
            if one not in self.tasks:
                return f'the study has no task "{one}"'
        for epoch in record["history"]:
            pairs = (epoch.get("conflicts") or {}).get("cosines")
            if pairs is not None and {len(self.tasks)} != {len(pairs), *map(len, pairs)} and task is None:
                return f"its cosines are not those of {len(self.tasks)} tasks"
        return ""

    def short(self, method: str) -> str:
        """What a method is called where there is little room: without the options of its teleport that it shares with all
        others on top of the same balancer.
        """
        return distinct(self.methods).get(method, method)

    def records(self, method: str) -> dict[int, Record]:
        """Seed → record of a method, by seed."""
        if method not in self._runs:
            raise InputError(f'the study has no run of "{method}"; it has {", ".join(self.methods) or "none"}')
        return dict(sorted(self._runs[method].items()))

    def baseline_records(self, task: str) -> dict[int, Record]:
        """Seed → record of a task's single-task baseline, by seed."""
        return dict(sorted(self._baselines[task].items()))

    def values(self, method: str, metric: Metric) -> dict[int, float]:
        """Seed → value of a metric; ``nan`` where the run recorded something that is no finite number."""
        return {seed: _final(record, metric) for seed, record in self.records(method).items()}

    def baseline_values(self, metric: Metric) -> dict[int, float]:
        """Seed → value of a metric in single-task training."""
        return {seed: _final(record, metric) for seed, record in self.baseline_records(metric.task).items()}

    def baseline(self) -> dict[str, Spread]:
        """Metric name → mean ± standard deviation in single-task training; only metrics that have such runs."""
        values = {metric.name: self.baseline_values(metric) for metric in self.metrics}
        return {name: spread(own.values()) for name, own in values.items() if own}

    def obstacle(self) -> str:
        """Why there is no Δm, in words; empty if there is."""
        baseline = self.baseline()
        for metric in self.metrics:
            if metric.name not in baseline:
                return f'there is no finished single-task baseline of task "{metric.task}"'
            mean = baseline[metric.name].mean
            if mean == 0 or not math.isfinite(mean):
                return f'the single-task baseline of metric "{metric.name}" is {mean:g}'
        return ""

    def delta_m(self, method: str) -> dict[int, float]:
        """Seed → Δm % against the mean of the single-task baselines over their seeds; empty if there is an obstacle."""
        if self.obstacle():
            return {}
        baseline = {name: own.mean for name, own in self.baseline().items()}
        return {
            seed: delta_m({metric.name: _final(record, metric) for metric in self.metrics}, baseline, self.metrics)
            for seed, record in self.records(method).items()
        }

    def mean_ranks(self) -> dict[str, float]:
        """Method → mean rank over metrics, of the means over seeds; single-task training takes no part."""
        if not self.methods:
            return {}
        means = {
            method: {metric.name: spread(self.values(method, metric).values()).mean for metric in self.metrics}
            for method in self.methods
        }
        return mean_rank(means, self.metrics)

    def ranking(self) -> tuple[str, ...]:
        """The methods from the best mean Δm to the worst; by mean rank where there is no Δm."""
        drops: Mapping[str, float] = (
            self.mean_ranks()
            if self.obstacle()
            else {method: spread(self.delta_m(method).values()).mean for method in self.methods}
        )
        return tuple(sorted(self.methods, key=lambda method: (math.isnan(drops[method]), drops[method])))

    @property
    def reference(self) -> str:
        """The method that the others are compared with: equal weighting if it is there, else the first."""
        return "ls" if "ls" in self.methods else next(iter(self.methods), "")

    def comparisons(self) -> dict[str, tuple[Comparison, float]]:
        """Each other method's Δm against the reference's, paired by seed.

        Returns:
            method → (comparison of the method minus the reference, p-value after Holm's correction over all methods).
        """
        return self._compared({method: self.reference for method in self.methods if method != self.reference})

    def teleport_comparisons(self) -> dict[str, tuple[Comparison, float]]:
        """As :meth:`comparisons`, but each method that teleports against its :meth:`counterpart` without."""
        others = {method: self.counterpart(method) for method in self.teleporting()}
        return self._compared({method: other for method, other in others.items() if other is not None})

    def _compared(self, others: Mapping[str, str]) -> dict[str, tuple[Comparison, float]]:
        pairs = {}
        for method, other in others.items():
            theirs, own = self.delta_m(method), self.delta_m(other)
            common = [seed for seed in theirs if seed in own]
            if common:
                pairs[method] = paired_comparison([theirs[seed] for seed in common], [own[seed] for seed in common])
        corrected = holm({method: pair.p for method, pair in pairs.items()})
        return {method: (pair, corrected[method]) for method, pair in pairs.items()}

    def teleporting(self) -> tuple[str, ...]:
        """The methods that teleport, in the order of :meth:`ranking`, whether or not they ever attempted it."""
        return tuple(method for method in self.ranking() if any(map(_teleports, self.records(method).values())))

    def counterpart(self, method: str) -> str | None:
        """The same method without its teleport, if the study holds runs of it: ``X`` for ``cost+X``."""
        records = self.records(method).values()
        plain = without_teleport(method)
        if plain in self._runs and any(map(_teleports, records)):
            return plain
        # A label of the user's own says nothing; name and options do.
        for record in records:
            described = _described(record)
            for other in self.methods:
                if described[0] and "teleport" in described[1] and other != method:
                    name, options = _described(next(iter(self._runs[other].values())))
                    if (name, options) == (described[0], {key: described[1][key] for key in described[1] if key != "teleport"}):
                        return other
        return None

    def teleports(self, method: str) -> dict[int, list[TeleportReport]]:
        """Seed → every attempt of a method to teleport, in order; numbers that were not finite are ``nan``."""
        return {
            seed: [_report(entry) for entry in record.get("teleports") or []] for seed, record in self.records(method).items()
        }

    def audits(self, method: str) -> dict[int, list[dict[str, Any]]]:
        """Seed → what the audits of a method's proxy said, in order."""
        return {seed: list(record.get("audits") or []) for seed, record in self.records(method).items()}

    def points(self, method: str) -> dict[int, dict[str, Any]]:
        """Seed → where the run was in loss and conflict, see :class:`equipoise.study.records.Points`; only runs that know."""
        return {seed: record["points"] for seed, record in self.records(method).items() if record.get("points")}

    def tuning(self) -> dict[tuple[str, float], dict[str, Any]]:
        """Method and learning rate → metrics on the validation split of the run that tried it."""
        records = Folder(self.folder.path / "tuning").records()
        return {
            (record["run"]["method"], record["run"]["lr"]): record["final"]["validation"]
            for record in records
            if record["run"].get("lr") is not None and record["final"]["validation"] is not None
        }

    def epoch_seconds(self, method: str, *, solo: bool = True) -> dict[int, float]:
        """Seed → mean seconds of an epoch's optimizer steps, teleports included; of solo runs (:meth:`seconds`) or all."""
        records = {seed: record for seed, record in self.records(method).items() if record.get("alone") or not solo}
        seconds = {seed: _curve([record], ("seconds",)) for seed, record in records.items()}
        return {seed: mean(own) for seed, own in seconds.items() if own and all(map(math.isfinite, own))}

    def seconds(self, method: str) -> list[float]:
        """Median seconds per step of each of a method's solo runs: side by side they disturb each other, by factors."""
        return [float(record["seconds_a_step"]["median"]) for record in self.records(method).values() if record.get("alone")]

    def curve(self, method: str, *path: str) -> list[float]:
        """A quantity over epochs, averaged over seeds.

        Args:
            method: the method.
            *path: keys into an epoch of the history, such as ``"losses", "left"``.

        Returns:
            One number per epoch; ``nan`` where no run has one.
        """
        return _curve(self.records(method).values(), path)

    def baseline_curve(self, task: str, *path: str) -> list[float]:
        """As :meth:`curve`, of a task's single-task baseline."""
        return _curve(self.baseline_records(task).values(), path)


def _key(record: Record) -> str:
    return key_of(record["run"]["method"], record["run"]["seed"], record["run"].get("lr"))


def _final(record: Record, metric: Metric) -> float:
    return _number(record["final"][SPLIT].get(metric.name))


def _curve(records: Any, path: tuple[str, ...]) -> list[float]:
    epochs: list[list[float]] = []
    for record in records:
        for position, epoch in enumerate(record["history"]):
            value: Any = epoch
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if position == len(epochs):
                epochs.append([])
            if not math.isnan(_number(value)):
                epochs[position].append(_number(value))
    return [mean(values) for values in epochs]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _described(record: Record) -> tuple[str, dict[str, Any]]:
    run = record["run"]
    return run.get("name", ""), run.get("options", {})


def _teleports(record: Record) -> bool:
    return "teleport" in _described(record)[1] or bool(record.get("teleports"))


def _report(entry: Mapping[str, Any]) -> TeleportReport:
    def number(value: Any) -> Any:
        return math.nan if value is None else [number(part) for part in value] if isinstance(value, list) else value

    own = TeleportReport.__dataclass_fields__
    return TeleportReport.from_dict({key: number(value) for key, value in entry.items() if key in own})


@dataclass(frozen=True)
class Discrepancy:
    """Statistics over the tasks, each the mean over the seeds.

    Attributes:
        mean: of the losses.
        deviation: their standard deviation (of these K numbers, not an estimate from a sample).
        lowest: the smallest loss.
        highest: the largest loss.
    """

    mean: float
    deviation: float
    lowest: float
    highest: float


def final_losses(results: Results, method: str) -> list[list[float]]:
    """Training losses of the last epoch, means over its steps: seed → task; tasks that were never seen are left out."""
    return [
        [_number(own["losses"][task]) for task in results.tasks if task in own["losses"]]
        for own in (record["history"][-1] for record in results.records(method).values())
    ]


def relative_losses(results: Results, method: str) -> list[list[float]]:
    """The same, each over the size of the task's first loss in that run; empty where that was not recorded."""
    relative = []
    for record in results.records(method).values():
        scales = (record.get("points") or {}).get("scales") or {}
        losses = record["history"][-1]["losses"]
        known = [_number(losses[task]) / scales[task] for task in results.tasks if task in losses and scales.get(task)]
        if known:
            relative.append(known)
    return relative


def discrepancy(losses: list[list[float]]) -> Discrepancy | None:
    """The statistics of some seeds' losses; ``None`` if there is nothing finite.

    Example:
        >>> discrepancy([[1.0, 3.0], [2.0, 4.0]])
        Discrepancy(mean=2.5, deviation=1.0, lowest=1.5, highest=3.5)
    """
    seeds = [np.asarray(own) for own in losses if own and all(map(math.isfinite, own))]
    if not seeds:
        return None
    unit = unit_of([float(value) for own in seeds for value in own])
    seeds = [own / unit for own in seeds]
    statistics = np.mean([[own.mean(), own.std(), own.min(), own.max()] for own in seeds], axis=0)
    return Discrepancy(*(unit * float(value) for value in statistics))
