"""The three problems of section 4.6.1, how far a point is from their solution sets, and one run of a method on one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox import make_optimizer
from equipoise.errors import InputError, near_misses
from equipoise_papers.figures.asmg.settings import PROBLEMS, ASMGRun, ASMGSettings

__all__ = ["ASMGProblem", "problem", "trajectory"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ASMGProblem:
    """A problem of d inputs and two outputs.

    Attributes:
        name: short name, for the command line and files.
        title: what the thesis calls it.
        outputs: F, from [N, d] to [N, 2].
        distance: ℰ, the Euclidean distance of a point [d] from the solution set.
    """

    name: str
    title: str
    outputs: Callable[[Array], Array]
    distance: Callable[[Array], float]


def _shift_l1(dimension: int) -> ASMGProblem:
    scale = 10.0 ** (2 * np.arange(dimension) / (dimension - 1))

    def outputs(x: Array) -> Array:
        return np.stack([np.abs(x - 0.01) @ scale, np.abs(x + 0.01) @ scale], axis=1)

    return ASMGProblem(
        "shift-l1", "shift l₁-ellipsoid (4.21)", outputs, lambda x: float(np.linalg.norm(np.maximum(np.abs(x) - 0.01, 0.0)))
    )


def _shift_half(dimension: int) -> ASMGProblem:
    def outputs(x: Array) -> Array:
        return np.stack([np.sqrt(np.abs(x - 0.1)).sum(axis=1), np.sqrt(np.abs(x + 0.1)).sum(axis=1)], axis=1)

    # The front is concave; what methods can end in is the corners, every coordinate at -0.1 or 0.1.
    return ASMGProblem("shift-half", "shift l½-ellipsoid (4.22)", outputs, lambda x: float(np.linalg.norm(np.abs(x) - 0.1)))


def _mixed(dimension: int) -> ASMGProblem:
    steep = 10.0 ** (2 * np.arange(dimension) / (dimension - 1))
    scale = 10.0 ** (np.arange(dimension) / (dimension - 1))

    def outputs(x: Array) -> Array:
        scaled = scale * x
        rastrigin = 10.0 * dimension + (scaled**2 - 10.0 * np.cos(2 * np.pi * scaled)).sum(axis=1)
        return np.stack([np.sqrt(np.abs(x)) @ steep, rastrigin], axis=1)

    return ASMGProblem("mixed", "mixed ellipsoid-Rastrigin 10 (4.23)", outputs, lambda x: float(np.linalg.norm(x)))


_MAKERS: dict[str, Callable[[int], ASMGProblem]] = dict(zip(PROBLEMS, (_shift_l1, _shift_half, _mixed), strict=True))


def problem(name: str, dimension: int) -> ASMGProblem:
    """Makes a problem by its name.

    Raises:
        InputError: there is none of that name, or fewer than two dimensions.

    Example:
        >>> import numpy as np
        >>> problem("shift-l1", 5).distance(np.array([0.0, 0.01, -0.01, 0.0, 3.01]))
        3.0
    """
    if name not in _MAKERS:
        raise InputError(f'there is no problem "{name}"; there are {", ".join(_MAKERS)}.{near_misses(name, _MAKERS)}')
    if dimension < 2:
        raise InputError(f"dimension is {dimension}; the problems need at least 2")
    return _MAKERS[name](dimension)


_POINTS = 400  # of a curve


def trajectory(run: ASMGRun, settings: ASMGSettings) -> dict[str, Any]:
    """Runs it from a mean drawn uniformly from [0, 1]^d, which all methods share, and Σ = I.

    Returns:
        ``iterations`` and ``distances`` of the curve, ``reached`` (the first iteration with ℰ < 1e-4, or ``None``), ``final``
        (the last ℰ), ``seconds`` and ``ended`` (why: ``arrived``, ``iterations`` or ``seconds``).
    """
    task = problem(run.cell.problem, run.cell.dimension)
    start = np.random.default_rng([run.seed, 1]).uniform(0.0, 1.0, run.cell.dimension)
    printed = {"covariance": "printed", "scaling": "none"} if run.method == "asmg" else {}  # the thesis' to the letter
    optimizer = make_optimizer(
        run.method, start, std=1.0, samples=run.cell.samples, seed=np.random.default_rng([run.seed, 2]), **printed
    )
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
