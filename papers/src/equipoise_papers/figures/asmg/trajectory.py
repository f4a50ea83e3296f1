"""One run: a method on a problem, and its distance from the solutions as it goes."""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np

from equipoise.blackbox import make_optimizer
from equipoise_papers.figures.asmg.problems import problem
from equipoise_papers.figures.asmg.settings import Run, Settings

__all__ = ["trajectory"]

_POINTS = 400  # of a curve


def trajectory(run: Run, settings: Settings) -> dict[str, Any]:
    """Runs it from a mean drawn uniformly from [0, 1]^d, which all methods share, and Σ = I.

    Returns:
        ``iterations`` and ``distances`` of the curve, ``reached`` (the first iteration with ℰ < 1e-4, or ``None``), ``final``
        (the last ℰ), ``seconds`` and ``ended`` (why: ``arrived``, ``iterations`` or ``seconds``).
    """
    task = problem(run.cell.problem, run.cell.dimension)
    start = np.random.default_rng([run.seed, 1]).uniform(0.0, 1.0, run.cell.dimension)
    optimizer = make_optimizer(run.method, start, std=1.0, samples=run.cell.samples, seed=np.random.default_rng([run.seed, 2]))
    every = max(1, settings.iterations // _POINTS)
    iterations, distances = [0], [task.distance(start)]
    reached: int | None = None
    ended = "iterations"
    began = process_time()
    for iteration in range(1, settings.iterations + 1):
        optimizer.tell(task.outputs(optimizer.ask()))
        distance = task.distance(optimizer.mean)
        if reached is None and distance < 1e-4:
            reached = iteration
        if distance <= settings.target:
            ended = "arrived"
        elif process_time() - began > settings.seconds:
            ended = "seconds"
        if iteration % every == 0 or ended != "iterations" or iteration == settings.iterations:
            iterations.append(iteration)
            distances.append(distance)
        if ended != "iterations":
            break
    return {
        "iterations": iterations,
        "distances": distances,
        "reached": reached,
        "final": distances[-1],
        "seconds": process_time() - began,
        "ended": ended,
    }
