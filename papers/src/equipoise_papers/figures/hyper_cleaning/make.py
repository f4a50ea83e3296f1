"""Runs the experiment and writes what came out: picture and table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from equipoise_papers.figures.folder import made_folder
from equipoise_papers.figures.hyper_cleaning.picture import picture
from equipoise_papers.figures.hyper_cleaning.run import run
from equipoise_papers.figures.hyper_cleaning.settings import METHODS, Settings
from equipoise_papers.figures.hyper_cleaning.train import Outcome

__all__ = ["make"]

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
