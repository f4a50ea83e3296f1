"""Runs what the folder lacks, in processes beside each other, and writes what came out: picture and table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from equipoise.errors import InputError
from equipoise.store import write_json
from equipoise.study.pictures.style import COLOURS, GREY, STYLES, grid
from equipoise_papers.figures.folder import made_folder
from equipoise_papers.figures.hyper_cleaning.settings import METHODS, Settings
from equipoise_papers.figures.hyper_cleaning.train import Outcome, train

__all__ = ["make", "picture", "run"]

_RUNS = ("methods", "seeds")  # settings that say which runs there are, not what a run is


def run(
    settings: Settings,
    source: str,
    data: Path | None,
    folder: Path,
    jobs: int,
    told: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Runs what is not in the folder yet.

    Args:
        settings: what to run.
        source: which data.
        data: where they lie.
        folder: gets a file a finished run.
        jobs: processes beside each other.
        told: called with a line now and then.

    Raises:
        InputError: the folder holds runs of other settings.
    """
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    identity = {name: value for name, value in asdict(settings).items() if name not in _RUNS} | {"data": source}
    _check_identity(runs / "settings.json", identity)
    wanted = {runs / f"{method}-{seed}.json": (method, seed) for seed in settings.seeds for method in settings.methods}
    missing = {path: one for path, one in wanted.items() if not path.exists()}
    for path, outcome in _finished(missing, settings, source, data, jobs):
        write_json(path, asdict(outcome))
        scores = ", ".join(f"{task} {value:.1f} %" for task, value in outcome.accuracy.items())
        told(f"{outcome.method}, seed {outcome.seed}: {scores} ({outcome.seconds * 1e3:.0f} ms a step)")
    return [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in wanted]


def _finished(
    missing: Mapping[Path, tuple[str, int]], settings: Settings, source: str, data: Path | None, jobs: int
) -> Iterator[tuple[Path, Outcome]]:
    """The runs, one thread each, as they end."""
    if jobs == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for path, (method, seed) in missing.items():
                yield path, train(method, seed, settings, source, data)
        finally:
            torch.set_num_threads(threads)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        going = {pool.submit(train, *one, settings, source, data): path for path, one in missing.items()}
        for future in as_completed(going):
            yield going[future], future.result()


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    written = json.loads(json.dumps(identity))
    if not path.exists():
        write_json(path, written)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = sorted(name for name in {*before, *written} if before.get(name) != written.get(name))
    if differing:
        raise InputError(
            f"{path.parent} holds runs with another {differing[0]} ({before.get(differing[0])}, now "
            f"{written.get(differing[0])}); choose another folder with --output"
        )


_DPI = 150


def make(
    settings: Settings,
    source: str,
    data: Path | None,
    folder: Path,
    jobs: int = 1,
    told: Callable[[str], None] = lambda line: None,
) -> str:
    """Makes the figure; stopped and called again, it goes on with the runs that are missing.

    Args:
        settings: what to run.
        source: ``"digits"`` or ``"mnist"``.
        data: where the IDX files lie.
        folder: where everything goes; made if it does not exist.
        jobs: processes beside each other.
        told: called with a line now and then.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made, or holds runs of other settings.
    """
    made_folder(folder)
    outcomes = run(settings, source, data, folder, jobs, told)
    picture(outcomes, settings).savefig(folder / "hyper-cleaning.png", dpi=_DPI)
    text = _table(outcomes, settings)
    (folder / "hyper-cleaning.md").write_text(text, encoding="utf-8")
    return text


def _table(outcomes: Sequence[Outcome], settings: Settings) -> str:
    tasks = list(outcomes[0].accuracy)
    head = [f"{task}, {what}" for task in tasks for what in ("accuracy (%)", "F1 (%)", "after the last step (%)", "AUC")]
    lines = [f"| method | {' | '.join(head)} | ms a step |", "| --- |" + " ---: |" * (len(head) + 1)]
    for method in settings.methods:
        own = [outcome for outcome in outcomes if outcome.method == method]
        cells = []
        for task in tasks:
            cells += [_spread([outcome.accuracy[task] for outcome in own]), _spread([outcome.f1[task] for outcome in own])]
            cells.append(_spread([outcome.last[task] for outcome in own]))
            cells.append(_spread([outcome.auc[task] for outcome in own], 3) if own[0].auc else "–")
        seconds = statistics.fmean(outcome.seconds for outcome in own)
        lines.append(f"| {METHODS[method]} | {' | '.join(cells)} | {seconds * 1e3:.0f} |")
    train, first, second, test = settings.samples
    lines += [
        "",
        f"Mean ± standard deviation over {len(settings.seeds)} seeds. {train} training samples a data set, "
        f"{settings.corrupted:.0%} of them with a wrong label; {first} and {second} validation samples; {test} test samples; "
        f"{settings.sizes[0]}-{settings.sizes[1]}-{settings.sizes[2]} shared units; K = {settings.steps}, "
        f"T = {settings.lower_steps}, batches of {settings.batch_size}. AUC: of the weights as a test for clean labels. "
        f"Accuracy and F1 are those of the model that was best on the second validation set, looked at every "
        f"{settings.evaluate_every} steps.",
        "",
    ]
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def picture(outcomes: Sequence[Outcome], settings: Settings) -> Figure:
    """Three panels: accuracy by data set, ROC curves (first seed), validation accuracy over the outer steps."""
    figure, (accuracy, roc, history) = grid(3, columns=3, width=3.9, height=3.3)
    tasks = list(outcomes[0].accuracy)
    for position, method in enumerate(settings.methods):
        own = [outcome for outcome in outcomes if outcome.method == method]
        color = GREY if method == "noisy" else COLOURS[position - 1]
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
    accuracy.set_title("test accuracy (%), a point a seed")
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
