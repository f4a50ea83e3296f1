"""A study's methods ranked against equal weighting: ``python -m benchmarks.shelf FOLDER --csv FILE``, docs/methods-on-qm9.md.

Every metric is compared with that of ``ls`` with the same seed, as a relative change in percent, worse above zero, and the mean
over the metrics is what ranks. The numbers of every run are in the file, to which a folder adds its methods; without a folder
the table is that of the file as it is. All metrics are errors: lower is better.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost_judged import interval
from benchmarks.tables import table
from equipoise.metrics import Metric, delta_m, holm, paired_comparison, spread
from equipoise.metrics.summaries import mean_rank
from equipoise.study.results import Results

__all__ = ["main"]

_TIME, _ALONE = "ms_per_step", "stl:"
Runs = dict[str, dict[int, dict[str, float]]]
"""Method (``stl:`` and a task for one trained alone) → seed → metric, or ``ms_per_step`` → value."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ranking, and writes every number that it rests on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shelf", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="a study's folder, whose methods are added to the file")
    parser.add_argument("--csv", type=Path, required=True, help="the file with the metrics of every run")
    options = parser.parse_args(arguments)
    runs = read(options.csv) if options.csv.exists() else {}
    if options.folder is not None:
        results = Results(options.folder)
        added = runs_of(results)
        alone = any(name.startswith(_ALONE) for name in (*runs, *added))
        if not alone or any(metric.higher_is_better for metric in results.metrics):
            raise SystemExit("only metrics that are all errors are ranked, with single-task runs in the folder or the file")
        if runs:
            added = in_units_of(runs["ls"], added)
        for method, own in added.items():
            runs.setdefault(method, own)
        write(runs, options.csv)
    print(ranking(runs))


def ranking(runs: Runs) -> str:
    """The table, best first."""
    methods = {name: own for name, own in runs.items() if not name.startswith(_ALONE)}
    plain = methods["ls"]
    names = [name for name in next(iter(plain.values())) if name != _TIME]
    metrics = [Metric(name, name, higher_is_better=False) for name in names]
    alone = {name: statistics.fmean(run[name] for run in runs[f"{_ALONE}{name}"].values()) for name in names}
    changes = {name: [delta_m(run, plain[seed], metrics) for seed, run in own.items()] for name, own in methods.items()}
    judged = {
        name: paired_comparison(own, [0.0] * len(own)).p for name, own in changes.items() if name != "ls" and len(own) > 1
    }
    corrected = holm(judged)
    means = {
        name: {metric: statistics.fmean(run[metric] for run in own.values()) for metric in names}
        for name, own in methods.items()
    }
    ranks = mean_rank(means, metrics)
    rows = [
        [
            f"`{name}`",
            interval(changes[name]) if name != "ls" else "0",
            f"{sum(change < 0 for change in changes[name])} of {len(changes[name])}" if name != "ls" else "–",
            f"{corrected[name]:.2g}" if name in corrected else "–",
            spread([delta_m(run, alone, metrics) for run in methods[name].values()]).text(1, sign=True),
            f"{ranks[name]:.1f}",
            f"{_time(methods[name]) / _time(plain):.1f}×",
        ]
        for name in sorted(changes, key=lambda name: (math.isnan(changes[name][0]), statistics.fmean(changes[name])))
    ]
    head = ["method", "errors against `ls` (%) ↓", "seeds better", "p", "Δm (%) ↓", "mean rank ↓", "time per step"]
    return table(head, rows)


def _time(own: dict[int, dict[str, float]]) -> float:
    return statistics.median(run[_TIME] for run in own.values())


def in_units_of(plain: dict[int, dict[str, float]], added: Runs) -> Runs:
    """Runs of another day, with times in those of the file: so much shorter or longer as the steps of ``ls`` were on that day.

    Raises:
        SystemExit: they hold no ``ls``, or its numbers are others, so that the runs belong to another study.
    """
    again = added.get("ls", {})
    same = [
        math.isclose(run[name], plain[seed][name], rel_tol=1e-5)
        for seed, run in again.items()
        if seed in plain
        for name in run
        if name != _TIME
    ]
    if not same or not all(same):
        raise SystemExit("the folder's ls is not that of the file: these are runs of another study")
    factor = _time(plain) / _time(again)
    others = {method: own for method, own in added.items() if method != "ls"}
    return {method: {seed: run | {_TIME: factor * run[_TIME]} for seed, run in own.items()} for method, own in others.items()}


def runs_of(results: Results) -> Runs:
    """The test metrics of a study's runs, and the median times of their steps."""
    sources = {method: results.records(method) for method in results.methods}
    sources |= {f"{_ALONE}{task}": found for task in results.tasks if (found := results.baseline_records(task))}
    return {
        method: {
            seed: {
                **{metric.name: record["final"]["test"].get(metric.name, math.nan) for metric in results.metrics},
                _TIME: 1e3 * record["seconds_a_step"]["median"],
            }
            for seed, record in found.items()
        }
        for method, found in sources.items()
    }


def read(file: Path) -> Runs:
    """What :func:`write` wrote."""
    runs: Runs = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            method, seed = row.pop("method"), int(row.pop("seed"))
            runs.setdefault(method, {})[seed] = {name: float(value or "nan") for name, value in row.items()}
    return runs


def write(runs: Runs, file: Path) -> None:
    """One line per run: method, seed, metrics, and ms per step; methods by their letters, single tasks last."""
    names = list(dict.fromkeys(name for own in runs.values() for run in own.values() for name in run))
    with file.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(["method", "seed", *names])
        for method in sorted(runs, key=lambda name: (name.startswith(_ALONE), name)):
            for seed, run in sorted(runs[method].items()):
                values = ["" if math.isnan(run.get(name, math.nan)) else f"{run[name]:.6g}" for name in names]
                lines.writerow([method, seed, *values[:-1], f"{run[_TIME]:.3g}"])


if __name__ == "__main__":
    main()
