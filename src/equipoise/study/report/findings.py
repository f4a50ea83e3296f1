"""What a mean over metrics hides: collapsed metrics, the worst task, baselines that still improve, ranks that are shared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from equipoise.metrics import Metric, delta_m, holm, paired_comparison
from equipoise.metrics.metric import mean
from equipoise.study.report.words import LEVEL, places
from equipoise.study.results import Results

__all__ = ["Collapse", "collapses", "findings", "ranks", "task_drops", "unconverged", "worst_task"]

_LOST, _GROWN = 20.0, 100.0
"""A metric has collapsed that lost so much of what single-task training has, or whose error grew by so much, in percent."""
_MOVING = 2.0
"""A baseline that still gains so many percent between two stretches of epochs has not converged."""
_NAMED = 5  # methods that are named one by one


@dataclass(frozen=True)
class Collapse:
    """A metric of a method that collapsed on at least one seed.

    Attributes:
        metric: which.
        value: its mean over the seeds; ``nan`` where a run gave no finite number.
        baseline: that of single-task training.
        seeds: on how many seeds.
        of: of how many.
        drop: relative drop of the mean, in percent; infinite without a finite mean.
    """

    metric: Metric
    value: float
    baseline: float
    seeds: int
    of: int
    drop: float

    @property
    def severity(self) -> float:
        """The drop in units of what counts as a collapse."""
        return self.drop / (_LOST if self.metric.higher_is_better else _GROWN)

    def __str__(self) -> str:
        digits = places([self.baseline])
        unit = f" {self.metric.unit}" if self.metric.unit else ""
        own, alone = (f"{value:.{digits}f}{unit}".replace("-", "−") for value in (self.value, self.baseline))
        own = own if math.isfinite(self.value) else "no finite number"
        seeds = f", on {self.seeds} of {self.of} seeds" if self.of > 1 else ""
        return f"{self.metric.label} {own} where single-task training has {alone}{seeds}"


def _drop(value: float, baseline: float, metric: Metric) -> float:
    drop = delta_m({metric.name: value}, {metric.name: baseline}, [metric])
    return drop if math.isfinite(drop) else math.inf


def collapses(results: Results) -> dict[str, tuple[Collapse, ...]]:
    """Method → its collapsed metrics, the worst first; only methods that have any, those of the worst first.

    A metric that is better when higher has collapsed on a seed if a fifth of what single-task training reaches (its mean over
    seeds) is lost; one that is better when lower, if it is twice as large; either, if it is no finite number.
    """
    if results.obstacle():
        return {}
    baseline = results.baseline()
    found = {}
    for method in results.methods:
        own = []
        for metric in results.metrics:
            alone = baseline[metric.name].mean
            values = list(results.values(method, metric).values())
            limit = _LOST if metric.higher_is_better else _GROWN
            seeds = sum(_drop(value, alone, metric) >= limit for value in values)
            if seeds:
                center = mean(values) if all(map(math.isfinite, values)) else math.nan
                own.append(Collapse(metric, center, alone, seeds, len(values), _drop(center, alone, metric)))
        if own:
            found[method] = tuple(sorted(own, key=lambda one: -one.severity))
    return dict(sorted(found.items(), key=lambda entry: -entry[1][0].severity))


def task_drops(results: Results, method: str) -> dict[str, float]:
    """Task → relative drop against single-task training in percent, mean over its metrics and seeds; empty without a Δm."""
    if results.obstacle():
        return {}
    baseline = {name: own.mean for name, own in results.baseline().items()}
    drops = {}
    for task in results.tasks:
        metrics = [metric for metric in results.metrics if metric.task == task]
        if metrics:
            values = [results.values(method, metric) for metric in metrics]
            drops[task] = mean(
                delta_m({own.name: column[seed] for own, column in zip(metrics, values, strict=True)}, baseline, metrics)
                for seed in values[0]
            )
    return drops


def worst_task(results: Results, method: str) -> tuple[str, float]:
    """The task with the largest :func:`task_drops`, and that drop; no name and ``nan`` where there is none."""
    drops = task_drops(results, method)
    if not drops:
        return "", math.nan
    task = max(drops, key=lambda own: (math.isnan(drops[own]), drops[own]))
    return task, drops[task]


def ranks(results: Results) -> dict[str, tuple[int, int]]:
    """Method → the best and the worst rank by Δm that the seeds leave it; methods not told apart share ranks.

    One is told better than another by a paired t test over their common seeds, corrected after Holm over all pairs; what is
    better than a better one is better, too. The best rank counts the methods told better, the worst leaves out those told
    worse. Methods without a finite Δm have none.
    """
    drops = {method: results.delta_m(method) for method in results.methods}
    drops = {method: own for method, own in drops.items() if own and all(map(math.isfinite, own.values()))}
    pairs = {}
    for one, other in itertools.combinations(drops, 2):
        common = [seed for seed in drops[one] if seed in drops[other]]
        if len(common) > 1:
            columns = ([drops[method][seed] for seed in common] for method in (one, other))
            pairs[one, other] = paired_comparison(*columns)
    names = {f"{place}": pair for place, pair in enumerate(pairs)}
    corrected = holm({name: pairs[pair].p for name, pair in names.items()})
    better: dict[str, set[str]] = {method: set() for method in drops}  # method → those told better
    for name, (one, other) in names.items():
        if corrected[name] < LEVEL:
            winner, loser = (one, other) if pairs[one, other].difference < 0 else (other, one)
            better[loser].add(winner)
    for between in drops:
        for method in drops:
            if between in better[method]:
                better[method] |= better[between]
    worse = {method: sum(method in own for own in better.values()) for method in drops}
    return {method: (1 + len(better[method]), len(drops) - worse[method]) for method in drops}


def unconverged(results: Results) -> dict[str, float]:
    """Task → how many percent its single-task training still gained towards the end; only tasks that gained on every seed.

    The mean over the last fifth of the epochs is compared with the fifth before it, by the task's metric that moved most, on
    the validation split (the test split where there is none). A task counts if that is more than 2 %.
    """
    stretch = max(1, results.epochs // 5)
    if results.epochs < 2 * stretch:
        return {}
    found: dict[str, float] = {}
    for metric in results.metrics:
        gains = []
        for record in results.baseline_records(metric.task).values():
            values = [(epoch.get("validation") or epoch.get("test") or {}).get(metric.name) for epoch in record["history"]]
            numbers = [float(value) for value in values[-2 * stretch :] if value is not None]
            before, recent = numbers[:stretch], numbers[stretch:]
            if len(numbers) < 2 * stretch or not mean(before):
                continue
            gains.append(-delta_m({metric.name: mean(recent)}, {metric.name: mean(before)}, [metric]))
        if gains and min(gains) > 0 and mean(gains) > _MOVING:
            found[metric.task] = max(mean(gains), found.get(metric.task, 0.0))
    return found


def findings(results: Results, alike: Iterable[str] = ()) -> Iterable[str]:
    """What a reader should know before any mean, in sentences.

    Args:
        results: of the study.
        alike: sentences on methods that take the same update.
    """
    fallen = collapses(results)
    for method, own in list(fallen.items())[:_NAMED]:
        more = f" ({len(own) - 1} more of its metrics collapsed, too)" if len(own) > 1 else ""
        yield f"{method} collapsed: {own[0]}{more}."
    if len(fallen) > _NAMED:
        yield f"Collapsed as well: {', '.join(list(fallen)[_NAMED:])}."
    moving = {} if results.obstacle() else unconverged(results)  # without a Δm nothing is against them
    if moving:
        stretch = max(1, results.epochs // 5)
        still = ", ".join(f"{task} (by {gain:.0f} %)" for task, gain in moving.items())
        span = f"last {stretch} epochs than over the {stretch} before" if stretch > 1 else "last epoch than over the one before"
        yield (
            f"Single-task training has not converged: it was still better at {still} over the {span}. "
            "Δm is against an unfinished baseline; train for longer before you conclude anything."
        )
    elif results.epochs == 1 and not results.obstacle():
        yield "Whether single-task training has converged cannot be seen from one epoch."
    yield from (f"{said}." for said in alike)
