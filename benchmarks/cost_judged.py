"""What a study says of COST: ``python -m benchmarks.cost_judged FOLDER``, the tables of docs/cost-judged.md.

The folder is a study's, with methods alone and with ``cost(…)+`` before them. Everything is paired by seed. Cost is counted
in evaluations of the losses, a backward pass for two. At equal cost, COST is looked at after the epoch up to which it has cost
what the method alone costs in all epochs.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

from benchmarks.tables import table
from equipoise.balance.registry import REGISTRY
from equipoise.metrics import delta_m
from equipoise.study.names import without_teleport
from equipoise.study.results import Results
from equipoise.teleport import COST, TeleportReport
from equipoise.teleport.text import cost_of

__all__ = ["main"]


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of paired differences."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.2f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.2f} ± {half:.2f}"


class Judged:
    """One study.

    Args:
        results: of it.
        baselines: whether single-task runs serve as the reference; else each metric is compared with the method alone.
    """

    def __init__(self, results: Results, baselines: bool) -> None:
        self.results = results
        self.reference = {name: own.mean for name, own in results.baseline().items()} if baselines else None

    def score(self, label: str, seed: int, epoch: int, alone: str) -> float:
        """Δm % on the test split after an epoch: against single-task training, or against the method alone at its end."""
        metrics = self.results.records(label)[seed]["history"][epoch - 1]["test"]
        reference = self.reference or self.results.records(alone)[seed]["history"][-1]["test"]
        return float(delta_m(metrics, reference, self.results.metrics))

    def steps(self, label: str, seed: int) -> int:
        """Optimizer steps per epoch."""
        return int(self.results.records(label)[seed]["history"][0]["steps"])

    def overhead(self, label: str, seed: int) -> list[float]:
        """Cost of teleporting up to each epoch, in steps of the method alone."""
        record = self.results.records(label)[seed]
        tasks = len(self.results.tasks)
        cost = _cost(record["run"]["options"]["teleport"])
        looks = REGISTRY.find(record["run"]["name"]).cost == "losses"
        step = 1.0 + 2.0 * (1 if looks or "@" in label else tasks)
        check = 1.0 + 2.0 * tasks if looks else 0.0  # a Gramian for the trigger, where the method forms none
        # The search, the reference losses, the held-out looks where a guard needs them, and the step at the new point.
        batches = self.steps(label, seed) if cost.probes.probe_batches == "all" else cost.probes.probe_batches
        attempt = cost.search.cost(tasks, batches) + batches
        if cost.guard is not None:
            attempt += 2.0 * cost.probes.held_out_batches * (2.0 + 2.0 * tasks)
        spent = [record["waits"].get("no conflict", 0) * check / step / len(record["history"])] * len(record["history"])
        for report in record["teleports"]:
            spent[report["epoch"]] += (attempt + check + (step + check if report["accepted"] else 0.0)) / step
        return [sum(spent[: epoch + 1]) for epoch in range(len(spent))]

    def equal(self, label: str, seed: int) -> int:
        """The last epoch up to which the run has cost no more than the method alone in all epochs."""
        overhead, steps = self.overhead(label, seed), self.steps(label, seed)
        total = len(overhead) * steps
        return max([epoch for epoch in range(1, len(overhead) + 1) if epoch * steps + overhead[epoch - 1] <= total] or [1])

    def row(self, label: str) -> list[str] | None:
        """What is said of one method with COST."""
        alone = without_teleport(label)
        runs, plain = self.results.records(label), self.results.records(alone)
        seeds = sorted(runs.keys() & plain.keys())
        if not seeds:
            return None
        last = len(plain[seeds[0]]["history"])
        before = {seed: self.score(alone, seed, last, alone) for seed in seeds}
        gains = [self.score(label, seed, last, alone) - before[seed] for seed in seeds]
        equal = {seed: self.equal(label, seed) for seed in seeds}
        fair = [self.score(label, seed, equal[seed], alone) - before[seed] for seed in seeds]
        reports = [report for seed in seeds for report in self.results.teleports(label)[seed]]
        landed = [report for report in reports if report.accepted]
        distances = [[own[seed]["history"][-1]["conflicts"]["pareto"] for seed in seeds] for own in (plain, runs)]
        return [
            label.removesuffix(f"+{alone}"),
            alone,
            f"{statistics.fmean(before.values()):.2f}" if self.reference else "–",
            interval(gains),
            f"{sum(gain < 0 for gain in gains)} of {len(gains)}",
            f"{interval(fair)} (epoch {statistics.fmean(equal.values()):.0f})",
            f"{len(landed) / len(seeds):.1f} / {len(reports) / len(seeds):.1f}",
            *_seen(landed),
            " → ".join(f"{statistics.fmean(own):.2f}" for own in distances),
        ]


def _seen(landed: Sequence[TeleportReport]) -> list[str]:
    """σ, growth of the norms, the smallest cosine with the mean gradient: on the batches that were judged on."""
    if not landed:
        return ["–"] * 3
    growth = [math.log(report.growth) for report in landed if math.isfinite(report.growth)]
    cosines = [(min(report.cosines_before), min(report.cosines_after)) for report in landed if report.cosines_after]
    return [
        f"{statistics.fmean(report.sigma for report in landed):+.3f}",
        f"×{math.exp(statistics.fmean(growth)):.3f}" if growth else "–",
        " → ".join(f"{statistics.fmean(pair[place] for pair in cosines):+.2f}" for place in (0, 1)),
    ]


def _cost(options: dict[str, Any]) -> COST:
    return cost_of({name: value for name, value in options.items() if value is not None or name == "guard"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a study's table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_judged", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-baselines", action="store_true", help="hold each metric against the method alone")
    options = parser.parse_args(arguments)
    judged = Judged(Results(options.folder), not options.no_baselines)
    labels = judged.results.teleporting()
    rows = [row for label in sorted(labels, key=lambda label: (label.partition("+")[0], label)) if (row := judged.row(label))]
    head = ["COST", "on top of", "Δm % alone", "equal epochs", "seeds better", "equal cost", "landed / tried", "σ"]
    print(table([*head, "norms", "smallest cosine", "distance at the end"], rows))


if __name__ == "__main__":
    main()
