"""Measures everything and writes what came out: picture, table, numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.errors import EquipoiseError
from equipoise.markdown import table
from equipoise.study.pictures.style import COLORS, grid
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.forum_cost.settings import METHODS, ForumCostSettings
from equipoise_papers.figures.outputs import made_folder, write_outputs

__all__ = ["Measurement", "make", "picture", "run"]


@dataclass(frozen=True)
class Measurement:
    """What a step costs.

    Attributes:
        method: which.
        lower_steps: T.
        layers: further shared layers.
        parameters: p, the lower level's variables.
        seconds: median of a step.
        bytes: the step's peak beyond model, data and optimizer.
    """

    method: str
    lower_steps: int
    layers: int
    parameters: int
    seconds: float
    bytes: int


def run(settings: ForumCostSettings, told: Told = silent) -> list[Measurement]:
    """Measures everything once, T first, then p.

    Raises:
        EquipoiseError: a measurement failed; the message has its output.
    """
    grid = [(steps, settings.layers[0]) for steps in settings.lower_steps]
    grid += [(settings.fixed_lower_steps, layers) for layers in settings.layers]
    found = []
    for lower_steps, layers in dict.fromkeys(grid):
        for method in settings.methods:
            found.append(_one(method, lower_steps, layers, settings))
            told(
                f"{method}, T = {lower_steps}, p = {found[-1].parameters:,}: {found[-1].seconds * 1e3:.0f} ms, "
                f"{found[-1].bytes / 2**20:.0f} MiB"
            )
    return found


def _one(method: str, lower_steps: int, layers: int, settings: ForumCostSettings) -> Measurement:
    # Freed memory goes back at once, so that the peak is what was in use.
    environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="0")
    numbers = (lower_steps, layers, settings.batch_size, settings.repeats)
    command = [sys.executable, "-m", "equipoise_papers.figures.forum_cost.measure", method, *map(str, numbers), settings.device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EquipoiseError(f"{method} with T = {lower_steps} could not be measured:\n{done.stderr}")
    answer = json.loads(done.stdout)
    return Measurement(method, lower_steps, layers, int(answer["parameters"]), answer["seconds"], int(answer["bytes"]))


def make(settings: ForumCostSettings, folder: Path, told: Told = silent) -> str:
    """Makes the figure.

    Args:
        settings: what to measure.
        folder: where everything goes; made if it does not exist.
        told: takes a line now and then.

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


def _table(found: Sequence[Measurement], settings: ForumCostSettings) -> str:
    heads = [METHODS[method] for method in settings.methods]
    rows = []
    for lower_steps, layers in dict.fromkeys((one.lower_steps, one.layers) for one in found):
        own = {one.method: one for one in found if (one.lower_steps, one.layers) == (lower_steps, layers)}
        times = [f"{own[method].seconds * 1e3:.0f}" for method in settings.methods]
        sizes = [f"{own[method].bytes / 2**20:.0f}" for method in settings.methods]
        parameters = next(iter(own.values())).parameters
        rows.append([str(lower_steps), f"{parameters:,}", *times, *sizes])
    lines = [
        table(["T", "p", *(f"{head}, ms" for head in heads), *(f"{head}, MiB" for head in heads)], rows, left=0),
        "",
        f"Medians of {settings.repeats} steps after a first one, batches of {settings.batch_size} samples per data set, "
        f"{settings.device}, one thread; memory is the peak beyond model, data and first gradients, each measurement in a "
        "fresh process.",
        "",
    ]
    return "\n".join(lines)


def picture(found: Sequence[Measurement], settings: ForumCostSettings) -> Figure:
    """Four panels, as in Figure 3.1."""
    figure, panels = grid(4, columns=4, width=3.0, height=2.9)
    by_steps = [one for one in found if one.layers == settings.layers[0] and one.lower_steps in settings.lower_steps]
    by_size = [one for one in found if one.lower_steps == settings.fixed_lower_steps and one.layers in settings.layers]
    for axes, own, across, up, label in (
        (panels[0], by_steps, _steps, _seconds, "seconds per step"),
        (panels[1], by_size, _size, _seconds, "seconds per step"),
        (panels[2], by_steps, _steps, _mebibytes, "memory per step (MiB)"),
        (panels[3], by_size, _size, _mebibytes, "memory per step (MiB)"),
    ):
        _lines(axes, own, across, up, settings)
        axes.set_title(label)
        axes.set_xlabel("lower steps $T$" if own is by_steps else f"$p$ (millions), $T = {settings.fixed_lower_steps}$")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _lines(
    axes: Axes,
    found: Sequence[Measurement],
    across: Callable[[Measurement], float],
    up: Callable[[Measurement], float],
    settings: ForumCostSettings,
) -> None:
    for position, method in enumerate(settings.methods):
        own = sorted((across(one), up(one)) for one in found if one.method == method)
        # MoCo lies on top of MOML; dashes let both be seen.
        style = "--" if method == "moco" else "-"
        axes.plot(*zip(*own, strict=True), style, color=COLORS[position], marker="o", markersize=3.5, label=METHODS[method])
    axes.set_ylim(bottom=0)


def _steps(one: Measurement) -> float:
    return one.lower_steps


def _size(one: Measurement) -> float:
    return one.parameters / 1e6


def _seconds(one: Measurement) -> float:
    return one.seconds


def _mebibytes(one: Measurement) -> float:
    return one.bytes / 2**20
