"""Trains what is missing, then draws and tabulates what is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equipoise.markdown import table as markdown
from equipoise.metrics import delta_m, holm, paired_comparison, spread
from equipoise.store import plain, rounded, write_whole
from equipoise.study.pictures.style import COLORS, INK, grid
from equipoise.study.problems import find_problem
from equipoise.study.report.words import brief
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.normal_digits.run import train
from equipoise_papers.figures.normal_digits.settings import NETWORKS, NormalDigitsRun, NormalDigitsSettings
from equipoise_papers.figures.outputs import KeptRuns

__all__ = ["make", "positions_picture", "relations_picture", "table"]

_DPI = 150


def make(settings: NormalDigitsSettings, folder: Path, told: Told = silent) -> str:
    """Writes ``table.md``, ``positions.png``, ``relations.png`` and a JSON file per training into a folder.

    Trainings whose files are there are not run again, so an interrupted figure goes on where it was.

    Args:
        settings: what to run.
        folder: where to; made if it does not exist.
        told: takes a line on each training that has ended.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made, or holds trainings of other settings.
    """
    kept = KeptRuns(folder, settings.identity())

    def result(run: NormalDigitsRun) -> dict[str, Any]:
        found = kept.find(run.key)
        if found is None:
            found = kept.keep(run.key, rounded(plain(train(run, settings))))
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in found["test"].items())
            told(f"{run.key}: {metrics}; {found['seconds'] * 1e3:.2f} ms per step")
        return found

    chosen = _best_order(settings, result) if "different" in settings.networks else None
    results = {
        network: [result(NormalDigitsRun(network, seed, chosen if network == "different" else None)) for seed in settings.seeds]
        for network in settings.networks
    }
    tasks = find_problem("digits").tasks
    flowing = {network: runs for network, runs in results.items() if network in ("normal", "positive", "first-order")}
    if flowing:
        positions_picture(flowing, tasks).savefig(folder / "positions.png", dpi=_DPI)
    if "normal" in results:
        relations_picture(results["normal"], tasks).savefig(folder / "relations.png", dpi=_DPI)
    text = table(settings, results, tasks, chosen)
    write_whole(folder / "table.md", text)
    return text


def _best_order(settings: NormalDigitsSettings, result: Callable[[NormalDigitsRun], dict[str, Any]]) -> tuple[float, ...]:
    """Which task sits at which of the constant positions: the order with the smallest Δm on the validation data."""
    metrics = find_problem("digits").metrics
    seed = settings.selection_seed
    baseline = result(NormalDigitsRun("hps", seed))["validation"]
    orders = list(islice(permutations(settings.fixed), settings.orders))
    drops = {
        order: delta_m(result(replace(NormalDigitsRun("different", seed), positions=order))["validation"], baseline, metrics)
        for order in orders
    }
    return min(orders, key=lambda order: drops[order])


Runs = Sequence[Mapping[str, Any]]


def positions_picture(results: Mapping[str, Runs], tasks: Sequence[str]) -> Figure:
    """One panel per network: positions over the steps, thin for each seed and thick for their median.

    Not the mean: seeds may end on different sides of 0, and nothing lies between.
    """
    figure, panels = grid(len(results), columns=3, width=4.0, height=3.4)
    for axes, (network, runs) in zip(panels, results.items(), strict=True):
        for number, task in enumerate(tasks):
            color = COLORS[number % len(COLORS)]
            curves = np.array([run["positions"][task] for run in runs])
            axes.plot(runs[0]["steps"], curves.T, color=color, linewidth=0.6, alpha=0.45)
            axes.plot(runs[0]["steps"], np.median(curves, axis=0), color=color, linewidth=2.0, label=task)
        axes.set_title(NETWORKS[network], color=INK)
        axes.set_xlabel("step")
    panels[0].set_ylabel("task position")
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def relations_picture(runs: Runs, tasks: Sequence[str]) -> Figure:
    """Distances of NORMAL's positions at the end, next to the cosines of the tasks' gradients: means over the seeds."""
    ends = np.array([[run["positions"][task][-1] for task in tasks] for run in runs])
    apart = np.abs(ends[:, :, None] - ends[:, None, :]).mean(0)
    cosines = np.array([run["cosines"] for run in runs]).mean(0)
    figure, (left, right) = grid(2, columns=2, width=3.6, height=3.2)
    # Dark is close and alike in both.
    _matrix(left, apart, tasks, "distance of task positions", "Blues_r", (0.0, max(apart.max(), 1e-9)))
    _matrix(right, cosines, tasks, "mean cosine of task gradients", "RdBu", (-1.0, 1.0))
    return figure


def _matrix(
    axes: Axes, values: NDArray[np.float64], tasks: Sequence[str], title: str, colors: str, limits: tuple[float, float]
) -> None:
    image = axes.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1])
    for row in range(len(tasks)):
        for column in range(len(tasks)):
            red, green, blue, _ = image.cmap(image.norm(values[row, column]))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            text = f"{values[row, column]:.2f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, color=INK)


Results = Mapping[str, Sequence[Mapping[str, Any]]]


def table(settings: NormalDigitsSettings, results: Results, tasks: Sequence[str], chosen: Sequence[float] | None) -> str:
    """One row per network, and below it where NORMAL's tasks ended.

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
    rows = []
    for network, runs in results.items():
        cells = [
            spread(run["test"][metric.name] for run in runs).text(2 if metric.unit == "%" else 4 if metric.name == "ink" else 3)
            for metric in metrics
        ]
        verdict = brief(compared[network], corrected[network]) if network in compared else "–"
        ratio = spread(run["seconds"] for run in runs).mean / usual
        drop = spread(drops[network]).text(1, sign=True)
        rows.append([NETWORKS[network], f"{runs[0]['parameters']:,}", *cells, drop, verdict, f"{ratio:.2f}×"])
    lines = [
        f"Test data after {settings.epochs} epochs with {settings.method}, mean ± standard deviation over "
        f"{len(settings.seeds)} seeds; Δm against the mean of hard parameter sharing, below 0 is better; "
        "p-values paired by seed, after Holm; time is processor time per step.",
        "",
        markdown(["network", "parameters", *(metric.heading for metric in metrics), "Δm % ↓", "against sharing", "time"], rows),
    ]
    if chosen is not None:
        named = ", ".join(f"{task} {position:g}" for task, position in zip(tasks, chosen, strict=True))
        lines += ["", f"Constant but different positions, best of {settings.orders} orders by validation: {named}."]
    if "normal" in results:
        lines += ["", *_learned(results["normal"], tasks)]
    return "\n".join(lines) + "\n"


def _learned(runs: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Positions at the end and what they say about pairs of tasks."""
    ends = [{task: run["positions"][task][-1] for task in tasks} for run in runs]
    rows = [
        [str(number), *(f"{end[task]:.3f}".replace("-", "−") for task in tasks), f"{run['gamma']:.3f}"]
        for number, (run, end) in enumerate(zip(runs, ends, strict=True))
    ]
    lines = [markdown(["NORMAL, seed by seed", *(f"p of {task}" for task in tasks), "γ"], rows, left=0), ""]
    pairs = list(combinations(range(len(tasks)), 2))
    rows = []
    for i, j in pairs:
        apart = spread(abs(end[tasks[i]] - end[tasks[j]]) for end in ends)
        cosine = spread(run["cosines"][i][j] for run in runs)
        rows.append([f"{tasks[i]}, {tasks[j]}", apart.text(3), cosine.text(3)])
    lines.append(markdown(["pair", "distance of positions", "mean cosine of gradients"], rows))
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
