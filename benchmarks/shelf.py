"""A study's methods ranked against equal weighting: ``python -m benchmarks.shelf FOLDER [--csv FILE]``, docs/methods-on-qm9.md.

Every metric is compared with that of ``ls`` with the same seed, as a relative change in percent, worse above zero, and the mean
over the metrics is what ranks. So single-task training is not needed, and its column is left out where it is missing.
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
from equipoise.metrics import delta_m, holm, paired_comparison, spread
from equipoise.study.results import Results

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ranking, and writes every number that it rests on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shelf", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, help="a file for the metrics of every run")
    options = parser.parse_args(arguments)
    results = Results(options.folder)
    print(ranking(results))
    if options.csv:
        write(results, options.csv)


def ranking(results: Results) -> str:
    """The table, best first."""
    plain = results.records("ls")
    changes: dict[str, list[float]] = {}
    for method in results.methods:
        runs = results.records(method)
        changes[method] = [
            delta_m(runs[seed]["final"]["test"], plain[seed]["final"]["test"], results.metrics)
            for seed in runs
            if seed in plain
        ]
    zeros = [0.0] * len(plain)
    judged = {
        method: paired_comparison(own, zeros[: len(own)]).p
        for method, own in changes.items()
        if method != "ls" and len(own) > 1
    }
    corrected, ranks, alone = holm(judged), results.mean_ranks(), not results.obstacle()
    timed = all(map(results.seconds, results.methods))  # solo runs alone say how long a step takes
    usual = _seconds(results, "ls") if timed else math.nan
    rows = []
    for method in sorted(changes, key=lambda name: (math.isnan(changes[name][0]), statistics.fmean(changes[name]))):
        last = [record["history"][-1] for record in results.records(method).values()]
        distances = [epoch["conflicts"]["pareto"] for epoch in last if (epoch.get("conflicts") or {}).get("pareto") is not None]
        rows.append(
            [
                f"`{method}`",
                interval(changes[method]) if method != "ls" else "0",
                f"{sum(change < 0 for change in changes[method])} of {len(changes[method])}" if method != "ls" else "–",
                f"{corrected[method]:.2g}" if method in corrected else "–",
                *([spread(results.delta_m(method).values()).text(1, sign=True)] if alone else []),
                f"{ranks[method]:.1f}",
                f"{statistics.fmean(distances):.2f}" if distances else "–",
                *([f"{_seconds(results, method) / usual:.1f}×"] if timed else []),
            ]
        )
    head = ["method", "errors against `ls` (%) ↓", "seeds better", "p", *(["Δm (%) ↓"] if alone else []), "mean rank ↓"]
    return table([*head, "from Pareto stationarity", *(["time per step"] if timed else [])], rows)


def _seconds(results: Results, method: str) -> float:
    return statistics.median(results.seconds(method))


def write(results: Results, file: Path) -> None:
    """One line per run: method (``stl:`` and a task for one trained alone), seed, metrics, and ms per step."""
    names = [metric.name for metric in results.metrics]
    with file.open("w", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(["method", "seed", *names, "ms_per_step"])
        sources = {method: results.records(method) for method in results.methods}
        sources |= {f"stl:{task}": runs for task in results.tasks if (runs := results.baseline_records(task))}
        for method, runs in sources.items():
            for seed, record in runs.items():
                test = record["final"]["test"]
                values = [f"{test[name]:.6g}" if test.get(name) is not None else "" for name in names]
                lines.writerow([method, seed, *values, f"{1e3 * record['seconds_a_step']['median']:.3g}"])


if __name__ == "__main__":
    main()
