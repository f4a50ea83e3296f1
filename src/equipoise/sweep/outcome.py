"""What a sweep's folder holds, as numbers over seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from equipoise.errors import InputError
from equipoise.metrics import Metric, spread
from equipoise.study.folder import Folder
from equipoise.study.records import Record
from equipoise.study.results import Results
from equipoise.sweep.folder import SweepFolder
from equipoise.sweep.front import hypervolume
from equipoise.sweep.objectives import drop, parse_objectives
from equipoise.sweep.trials import load_trials

__all__ = ["Outcome", "TrialOutcome"]


@dataclass(frozen=True)
class TrialOutcome:
    """One trial of the search.

    Attributes:
        number: Optuna's.
        label: the method that it stands for.
        state: ``"complete"``, ``"pruned"``, ``"failed"`` or ``"running"``.
        values: the objectives on the validation split; empty unless complete.
        test: metric → value on the test split, on the search's seed; empty unless complete.
        parameters: what Optuna drew.
    """

    number: int
    label: str
    state: str
    values: tuple[float, ...]
    test: Mapping[str, float]
    parameters: Mapping[str, object]


class Outcome:
    """Everything a sweep has found out so far; reads the folder once.

    Args:
        folder: a sweep's folder.

    Attributes:
        results: of the study that the sweep lives in: baselines, compared methods, confirmed trials.
        trials: those of the search, in order.
        objectives: what they were judged by.
        front: the two metrics of the Pareto front.
        confirmed: label of each confirmed trial of which runs are there → its number.
        methods: labels of the compared methods of which runs are there; one that is a confirmed trial as well counts here.
        settings: what was asked for.
        unread: each file of a trial that is no record → why, in words.

    Raises:
        InputError: not the folder of a sweep.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = SweepFolder(folder)
        self.settings = self.folder.configuration()
        self.results = Results(self.folder.study)
        by_name = {metric.name: metric for metric in self.results.metrics}
        self.objectives = parse_objectives(self.settings["objectives"], self.results.metrics)
        for name in self.settings["front"]:
            if name not in by_name:
                raise InputError(f'"{self.folder.about}" is damaged: the study has no metric "{name}"; sweep anew')
        self.front: tuple[Metric, ...] = tuple(by_name[name] for name in self.settings["front"])
        read, self.unread = Folder(self.folder.trials).read()
        records = {
            record["run"]["method"]: record
            for record in read.values()
            if record["epochs"] == self.results.epochs and record["run"]["seed"] == self.settings["seed"]
        }
        self.trials = tuple(self._trial(trial, records) for trial in load_trials(self.folder))
        labels = {trial.number: trial.label for trial in self.trials}
        there = set(self.results.methods)
        self.methods: tuple[str, ...] = tuple(label for label in self.settings["compare"] if label in there)
        self.confirmed: dict[str, int] = {
            labels[number]: number
            for number in self.settings["confirmed"]
            if labels.get(number) in there and labels[number] not in self.methods
        }

    def _trial(self, trial: FrozenTrial, records: Mapping[str, Record]) -> TrialOutcome:
        states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        state = states.get(trial.state, "running")
        label = str(trial.user_attrs.get("label", ""))
        record = records.get(label) if state == "complete" else None
        test = {name: _number(value) for name, value in record["final"]["test"].items()} if record else {}
        return TrialOutcome(
            trial.number, label, state, tuple(trial.values or ()) if state == "complete" else (), test, dict(trial.params)
        )

    def name(self, label: str) -> str:
        """What a confirmed trial or method is called where there is little room: ``#7`` for trial 7."""
        return f"#{self.confirmed[label]}" if label in self.confirmed else self.results.short(label)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that judge, as asked for."""
        return tuple(self.settings["seeds"])

    def drops(self, label: str, metrics: Sequence[Metric] | None = None) -> dict[int, tuple[float, ...]]:
        """Seed → how much worse than single-task training in each metric, in percent, on the test split.

        Args:
            label: a method or a confirmed trial.
            metrics: the two of the front if left out.
        """
        metrics = self.front if metrics is None else metrics
        if obstacle := self.results.obstacle():
            raise InputError(
                f'the sweep in "{self.folder.path}" has nothing to be compared with: {obstacle}; run it to its end'
            )
        baseline = self.results.baseline()
        values = {metric.name: self.results.values(label, metric) for metric in metrics}
        return {
            seed: tuple(drop(values[own.name][seed], baseline[own.name].mean, own) for own in metrics)
            for seed in self.results.records(label)
            if seed in self.seeds
        }

    def delta_m(self, label: str) -> dict[int, float]:
        """Seed → Δm % on the test split, on the seeds that judge."""
        return {seed: value for seed, value in self.results.delta_m(label).items() if seed in self.seeds}

    def validation(self, label: str) -> float:
        """The first objective on the validation split, mean over the seeds that judge."""
        baseline = {name: _number(value) for name, value in (self.settings["baseline"] or {}).items()}
        records = [record for seed, record in self.results.records(label).items() if seed in self.seeds]
        return spread(self.objectives[0].value(record["final"]["validation"], baseline) for record in records).mean

    def best(self) -> str:
        """The confirmed trial that one would use: the best by the first objective on the *validation* split over the seeds
        that judge; empty if there is none.

        A compared method that is a trial of the sweep as well, such as equal weights, takes part.
        """
        sign = 1.0 if self.objectives[0].direction == "minimize" else -1.0
        own = {label: sign * self.validation(label) for label in (*self.confirmed, *self.also_trials())}
        finite = {label: value for label, value in own.items() if math.isfinite(value)}
        return min(finite, key=lambda label: finite[label]) if finite else ""

    def also_trials(self) -> tuple[str, ...]:
        """Compared methods that the sweep has confirmed, too: equal weights are a point of the space of weights."""
        labels = {trial.number: trial.label for trial in self.trials}
        return tuple(dict.fromkeys(labels[n] for n in self.settings["confirmed"] if labels.get(n) in self.methods))

    def mean(self, label: str, metrics: Sequence[Metric] | None = None) -> tuple[float, ...]:
        """As :meth:`drops`, mean over seeds."""
        return tuple(spread(column).mean for column in zip(*self.drops(label, metrics).values(), strict=True))

    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Ideal and reference point of the hypervolume: best and worst mean of each metric of the front, over all confirmed
        trials and methods, the worst moved outwards by a tenth of the distance.
        """
        means = [self.mean(label) for label in (*self.confirmed, *self.methods)]
        finite = [point for point in means if point and all(map(math.isfinite, point))]
        if not finite:
            return (math.nan,) * len(self.front), (math.nan,) * len(self.front)
        ideal = tuple(min(column) for column in zip(*finite, strict=True))
        worst = tuple(max(column) for column in zip(*finite, strict=True))
        return ideal, tuple(high + 0.1 * ((high - low) or 1.0) for low, high in zip(ideal, worst, strict=True))

    def volume(self, labels: Sequence[str]) -> float:
        """Hypervolume of the mean points of confirmed trials or methods, as a share of the box between :meth:`box`'s points."""
        ideal, reference = self.box()
        size = math.prod(high - low for low, high in zip(ideal, reference, strict=True))
        if not labels or not size > 0 or not math.isfinite(size):
            return 0.0
        return hypervolume([own for own in map(self.mean, labels) if own], reference) / size


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
