"""Measures and writes what came out: picture, table, numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from equipoise_papers.figures.folder import made_folder, write_outputs
from equipoise_papers.figures.forum_cost.picture import picture
from equipoise_papers.figures.forum_cost.run import Measurement, run
from equipoise_papers.figures.forum_cost.settings import METHODS, Settings

__all__ = ["make"]


def make(settings: Settings, folder: Path, told: Callable[[str], None] = lambda line: None) -> str:
    """Makes the figure.

    Args:
        settings: what to measure.
        folder: where everything goes; made if it does not exist.
        told: called with a line now and then.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made.
    """
    made_folder(folder)
    found = run(settings, told)
    text = _table(found, settings)
    numbers = {"settings": asdict(settings), "measurements": [asdict(one) for one in found]}
    write_outputs(folder, "forum-cost", {"": picture(found, settings)}, text, numbers)
    return text


def _table(found: Sequence[Measurement], settings: Settings) -> str:
    heads = [METHODS[method] for method in settings.methods]
    lines = [
        f"| T | p | {' | '.join(f'{head}, ms' for head in heads)} | {' | '.join(f'{head}, MiB' for head in heads)} |",
        "| ---: | ---: |" + " ---: |" * (2 * len(heads)),
    ]
    for lower_steps, layers in dict.fromkeys((one.lower_steps, one.layers) for one in found):
        own = {one.method: one for one in found if (one.lower_steps, one.layers) == (lower_steps, layers)}
        times = [f"{own[method].seconds * 1e3:.0f}" for method in settings.methods]
        sizes = [f"{own[method].bytes / 2**20:.0f}" for method in settings.methods]
        parameters = next(iter(own.values())).parameters
        lines.append(f"| {lower_steps} | {parameters:,} | {' | '.join(times)} | {' | '.join(sizes)} |")
    lines += [
        "",
        f"Medians of {settings.repeats} steps after a first one, batches of {settings.batch_size} samples a data set, "
        f"{settings.device}, one thread; memory is the peak beyond model, data and first gradients, each measurement in a "
        "fresh process.",
        "",
    ]
    return "\n".join(lines)
