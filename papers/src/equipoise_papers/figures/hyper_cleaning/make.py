"""Runs what the folder lacks, in processes beside each other, and writes what came out: picture and table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from equipoise.markdown import table
from equipoise.store import write_whole
from equipoise.study.pictures.style import COLORS, GREY, STYLES, grid
from equipoise.study.processes.calls import calls
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.hyper_cleaning.settings import METHODS, HyperCleaningSettings
from equipoise_papers.figures.hyper_cleaning.train import HyperCleaningOutcome, train
from equipoise_papers.figures.outputs import KeptRuns
from equipoise_papers.tables import mean_and_spread

__all__ = ["make", "picture", "run"]


def run(settings: HyperCleaningSettings, folder: Path, told: Told = silent) -> list[HyperCleaningOutcome]:
    """Runs what is not in the folder yet, ``settings.jobs`` at a time, in a process each.

    Args:
        settings: what to run.
        folder: gets a file for each finished run.
        told: takes a line on each of them.

    Raises:
        InputError: the folder holds runs of other settings.
    """
    runs = KeptRuns(folder, settings.identity())
    wanted = [(method, seed) for seed in settings.seeds for method in settings.methods]
    missing = [one for one in wanted if runs.find(_key(*one)) is None]
    work = [(method, seed, settings) for method, seed in missing]
    for _, outcome in calls(train, work, settings.jobs, preload=(train.__module__,)):
        runs.keep(_key(outcome.method, outcome.seed), asdict(outcome))
        scores = ", ".join(f"{task} {value:.1f} %" for task, value in outcome.accuracy.items())
        told(f"{outcome.method}, seed {outcome.seed}: {scores} ({outcome.seconds * 1e3:.0f} ms per step)")
    return [HyperCleaningOutcome(**(runs.find(_key(*one)) or {})) for one in wanted]


def _key(method: str, seed: int) -> str:
    return f"{method}-{seed}"


_DPI = 150


def make(settings: HyperCleaningSettings, folder: Path, told: Told = silent) -> str:
    """Makes the figure; stopped and called again, it goes on with the runs that are missing.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: takes a line on each run.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made, or holds runs of other settings.
    """
    outcomes = run(settings, folder, told)
    picture(outcomes, settings).savefig(folder / "hyper-cleaning.png", dpi=_DPI)
    text = _table(outcomes, settings)
    write_whole(folder / "hyper-cleaning.md", text)
    return text


def _table(outcomes: Sequence[HyperCleaningOutcome], settings: HyperCleaningSettings) -> str:
    tasks = list(outcomes[0].accuracy)
    head = [f"{task}, {what}" for task in tasks for what in ("accuracy (%)", "F1 (%)", "after the last step (%)", "AUC")]
    rows = []
    for method in settings.methods:
        own = [outcome for outcome in outcomes if outcome.method == method]
        cells = []
        for task in tasks:
            cells += [
                mean_and_spread([outcome.accuracy[task] for outcome in own]),
                mean_and_spread([outcome.f1[task] for outcome in own]),
            ]
            cells.append(mean_and_spread([outcome.last[task] for outcome in own]))
            cells.append(mean_and_spread([outcome.auc[task] for outcome in own], 3) if own[0].auc else "–")
        seconds = statistics.fmean(outcome.seconds for outcome in own)
        rows.append([METHODS[method], *cells, f"{seconds * 1e3:.0f}"])
    train, first, second, test = settings.samples
    lines = [
        table(["method", *head, "ms per step"], rows),
        "",
        f"Mean ± standard deviation over {len(settings.seeds)} seeds. {train} training samples per data set, "
        f"{settings.corrupted:.0%} of them with a wrong label; {first} and {second} validation samples; {test} test samples; "
        f"{settings.sizes[0]}-{settings.sizes[1]}-{settings.sizes[2]} shared units; K = {settings.steps}, "
        f"T = {settings.lower_steps}, batches of {settings.batch_size}. AUC: of the weights as a test for clean labels. "
        f"Accuracy and F1 are those of the model that was best on the second validation set, looked at every "
        f"{settings.evaluate_every} steps.",
        "",
    ]
    return "\n".join(lines)


def picture(outcomes: Sequence[HyperCleaningOutcome], settings: HyperCleaningSettings) -> Figure:
    """Three panels: accuracy by data set, ROC curves (first seed), validation accuracy over the outer steps."""
    figure, (accuracy, roc, history) = grid(3, columns=3, width=3.9, height=3.3)
    tasks = list(outcomes[0].accuracy)
    for position, method in enumerate(settings.methods):
        own = [outcome for outcome in outcomes if outcome.method == method]
        color = GREY if method == "noisy" else COLORS[position - 1]
        for place, task in enumerate(tasks):
            values = [outcome.accuracy[task] for outcome in own]
            at = place + (position - (len(settings.methods) - 1) / 2) * 0.18
            accuracy.scatter([at] * len(values), values, color=color, s=18, zorder=3)
            accuracy.hlines(np.mean(values), at - 0.07, at + 0.07, color=color, linewidth=2.5, zorder=3)
            if own[0].roc:
                label = METHODS[method] if place == 0 else None
                curve = own[0].roc[task]
                roc.plot(*curve, STYLES[place], color=color, linewidth=1.5, label=label)
        curves = np.array([outcome.history for outcome in own])
        looks = np.minimum(np.arange(1, curves.shape[1] + 1) * settings.evaluate_every, settings.steps)
        history.plot(looks, curves.mean(0), color=color, linewidth=1.5, label=METHODS[method])
    accuracy.set_xticks(range(len(tasks)), tasks)
    accuracy.set_title("test accuracy (%), one point per seed")
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=":")
    roc.set_title("weights as a test for clean labels")
    roc.set_xlabel("corrupted labels passed")
    roc.set_ylabel("clean labels passed")
    for place, task in enumerate(tasks):
        roc.plot([], [], STYLES[place], color=GREY, linewidth=1.5, label=task)
    roc.legend(frameon=False, fontsize=8, loc="lower right")
    history.set_title("accuracy on the second validation set (%)")
    history.set_xlabel("outer step")
    history.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
