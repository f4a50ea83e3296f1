"""All measurements, one after the other, each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from equipoise.errors import EquipoiseError
from equipoise_papers.figures.forum_cost.settings import Settings

__all__ = ["Measurement", "run"]


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


def run(settings: Settings, told: Callable[[str], None] = lambda line: None) -> list[Measurement]:
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


def _one(method: str, lower_steps: int, layers: int, settings: Settings) -> Measurement:
    # Freed memory goes back at once, so that the peak is what was in use.
    environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="0")
    numbers = (lower_steps, layers, settings.batch_size, settings.repeats)
    command = [sys.executable, "-m", "equipoise_papers.figures.forum_cost.measure", method, *map(str, numbers), settings.device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EquipoiseError(f"{method} with T = {lower_steps} could not be measured:\n{done.stderr}")
    answer = json.loads(done.stdout)
    return Measurement(method, lower_steps, layers, int(answer["parameters"]), answer["seconds"], int(answer["bytes"]))
