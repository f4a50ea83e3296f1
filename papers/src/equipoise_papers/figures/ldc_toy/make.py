"""Runs the experiment and writes what came out: pictures, table, numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from equipoise_papers.figures.folder import made_folder, write_outputs
from equipoise_papers.figures.ldc_toy.outcome import Outcome, outcomes, spread
from equipoise_papers.figures.ldc_toy.picture import cost_picture, trajectories_picture
from equipoise_papers.figures.ldc_toy.run import run
from equipoise_papers.figures.ldc_toy.settings import Settings
from equipoise_papers.figures.ldc_toy.timing import seconds_a_step

__all__ = ["make"]


def make(settings: Settings, folder: Path, told: Callable[[int], None] | None = None) -> str:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: called now and then with the number of steps done.

    Returns:
        The tables, as Markdown.

    Raises:
        InputError: the folder cannot be made, or a method cannot be run.
    """
    made_folder(folder)
    trajectories = run(settings, told)
    seconds = seconds_a_step(settings)
    table = outcomes(trajectories)
    text = _markdown(table, seconds, settings)
    numbers = {"settings": asdict(settings), "ends": [asdict(outcome) for outcome in table], "seconds a step": seconds}
    pictures = {"": trajectories_picture(trajectories), "-cost": cost_picture(seconds)}
    write_outputs(folder, "ldc-toy", pictures, text, numbers)
    return text


def _markdown(table: list[Outcome], seconds: Mapping[str, float], settings: Settings) -> str:
    lines = [
        "| method | start | end | losses there | on the Pareto set | since step | abs(10 L₁ − L₂) |",
        "| --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    lines += [
        f"| {row.method} | {_pair(row.start, 1)} | {_pair(row.end, 2)} | {_pair(row.losses, 2)} | "
        f"{'yes' if row.pareto else 'no'} | {'–' if row.steps is None else f'{row.steps:,}'} | {row.gap:.2f} |"
        for row in table
    ]
    first = next(iter(seconds.values()))
    lines += [
        "",
        f"| method | on the Pareto set | farthest two ends | time of a step over that of {settings.methods[0]} |",
        "| --- | ---: | ---: | ---: |",
    ]
    for method, own in seconds.items():
        reached = [row.pareto for row in table if row.method == method]
        lines.append(f"| {method} | {sum(reached)} of {len(reached)} | {spread(table, method):.2f} | {own / first:.2f} |")
    lines += [
        "",
        f"Adam {settings.lr:g}, {settings.steps:,} steps, first loss times 0.1, sign: {settings.sign}. Losses are shifted by a "
        f"lower bound (2.1 and 21) before a method sees them. Times: median of {settings.repeats} turns of "
        f"{settings.timed_steps:,} steps each.",
        "",
    ]
    return "\n".join(lines)


def _pair(values: tuple[float, float], digits: int) -> str:
    return f"({values[0]:.{digits}f}, {values[1]:.{digits}f})".replace("-", "−")
