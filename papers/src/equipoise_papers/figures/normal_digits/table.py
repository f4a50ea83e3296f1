"""What came out, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from equipoise.metrics import delta_m, holm, paired_comparison, spread
from equipoise.study.problems import find_problem
from equipoise.study.report.words import brief
from equipoise_papers.figures.normal_digits.networks import NETWORKS
from equipoise_papers.figures.normal_digits.settings import Settings

__all__ = ["table"]

Results = Mapping[str, Sequence[Mapping[str, Any]]]


def table(settings: Settings, results: Results, tasks: Sequence[str], chosen: Sequence[float] | None) -> str:
    """A row a network, and below it where NORMAL's tasks ended.

    Args:
        settings: what was run.
        results: network → what :func:`~equipoise_papers.figures.normal_digits.run.train` gave, a seed each.
        tasks: names, in order.
        chosen: the constant but different positions that were best on the validation data.
    """
    metrics = find_problem("digits").metrics
    baseline = {metric.name: spread(run["test"][metric.name] for run in results["hps"]).mean for metric in metrics}
    drops = {
        network: [delta_m(run["test"], baseline, metrics) for run in runs] for network, runs in results.items()
    }  # against the mean over seeds, so that the reference has a spread as well
    compared = {network: paired_comparison(values, drops["hps"]) for network, values in drops.items() if network != "hps"}
    corrected = holm({network: comparison.p for network, comparison in compared.items()})
    usual = spread(run["seconds"] for run in results["hps"]).mean
    lines = [
        f"Test data after {settings.epochs} epochs with {settings.method}, mean ± standard deviation over "
        f"{len(settings.seeds)} seeds; Δm against the mean of hard parameter sharing, below 0 is better; "
        "p-values paired by seed, after Holm; time is processor time a step.",
        "",
        f"| network | parameters | {' | '.join(metric.heading for metric in metrics)} | Δm % ↓ | against sharing | time |",
        "| :-- | --: |" + " --: |" * len(metrics) + " --: | :-- | --: |",
    ]
    for network, runs in results.items():
        cells = [
            spread(run["test"][metric.name] for run in runs).text(2 if metric.unit == "%" else 4 if metric.name == "ink" else 3)
            for metric in metrics
        ]
        verdict = brief(compared[network], corrected[network]) if network in compared else "–"
        ratio = spread(run["seconds"] for run in runs).mean / usual
        drop = spread(drops[network]).text(1, sign=True)
        name, size = NETWORKS[network], f"{runs[0]['parameters']:,}"
        lines.append(f"| {name} | {size} | {' | '.join(cells)} | {drop} | {verdict} | {ratio:.2f}× |")
    if chosen is not None:
        named = ", ".join(f"{task} {position:g}" for task, position in zip(tasks, chosen, strict=True))
        lines += ["", f"Constant but different positions, best of {settings.orders} orders by validation: {named}."]
    if "normal" in results:
        lines += ["", *_learned(results["normal"], tasks)]
    return "\n".join(lines) + "\n"


def _learned(runs: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Positions at the end and what they say about pairs of tasks."""
    ends = [{task: run["positions"][task][-1] for task in tasks} for run in runs]
    lines = [
        f"| NORMAL, seed by seed | {' | '.join(f'p of {task}' for task in tasks)} | γ |",
        "| --: |" + " --: |" * (len(tasks) + 1),
    ]
    for number, (run, end) in enumerate(zip(runs, ends, strict=True)):
        cells = " | ".join(f"{end[task]:.3f}".replace("-", "−") for task in tasks)
        lines.append(f"| {number} | {cells} | {run['gamma']:.3f} |")
    lines += ["", "| pair | distance of positions | mean cosine of gradients |", "| :-- | --: | --: |"]
    pairs = list(combinations(range(len(tasks)), 2))
    for i, j in pairs:
        apart = spread(abs(end[tasks[i]] - end[tasks[j]]) for end in ends)
        cosine = spread(run["cosines"][i][j] for run in runs)
        lines.append(f"| {tasks[i]}, {tasks[j]} | {apart.text(3)} | {cosine.text(3)} |")
    ranks = [
        _rank_correlation([abs(end[tasks[i]] - end[tasks[j]]) for i, j in pairs], [run["cosines"][i][j] for i, j in pairs])
        for run, end in zip(runs, ends, strict=True)
    ]
    if all(map(math.isfinite, ranks)):
        lines += ["", f"Rank correlation of the two columns, seed by seed: {spread(ranks).text(2)}."]
    return lines


def _rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's; nan where one side does not vary. Ties do not occur among measured numbers."""
    import numpy as np

    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.asarray(np.corrcoef(ranks))[0, 1]) if len(one) > 1 else math.nan
