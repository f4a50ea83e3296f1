"""Where our MMES ends on Rosenbrock's function next to pypop7's: ``python -m benchmarks.mmes [--seeds 20]``.

It is no family of ``python -m benchmarks``, as it compares what is reached, not speed. ``pip install pypop7`` first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import table
from equipoise.blackbox import MMES

__all__ = ["main"]

CASES = ((20, 12, 40_000), (50, 15, 50_000), (50, 15, 150_000))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one row per dimension, population and number of evaluations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mmes", description="Our MMES next to pypop7's.")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each (default 20)")
    seeds = parser.parse_args(arguments).seeds
    rows = []
    for dimension, samples, evaluations in CASES:
        for name, run in (("equipoise", _ours), ("pypop7", _theirs)):
            ends = np.array([run(dimension, samples, evaluations, seed) for seed in range(seeds)])
            lower, middle, upper = (f"{end:.1e}" for end in np.quantile(ends, (0.25, 0.5, 0.75)))
            solved = f"{(ends < 1e-8).sum()} of {seeds}"
            rows.append([str(dimension), str(samples), f"{evaluations:,}", name, solved, lower, middle, upper])
    print(table(["d", "N", "evaluations", "", "below 1e-8", "lower quartile", "median", "upper quartile"], rows))


def _rosenbrock(points: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = (100.0 * (points[:, 1:] - points[:, :-1] ** 2) ** 2 + (points[:, :-1] - 1.0) ** 2).sum(axis=1)
    return values


def _ours(dimension: int, samples: int, evaluations: int, seed: int) -> float:
    optimizer = MMES(np.full(dimension, 3.0), std=3.0, samples=samples, seed=seed)
    best = np.inf
    for _ in range(evaluations // samples):
        values = _rosenbrock(optimizer.ask())
        best = min(best, float(values.min()))
        optimizer.tell(values[:, None])
    return best


def _theirs(dimension: int, samples: int, evaluations: int, seed: int) -> float:
    problem = {
        "fitness_function": lambda point: float(_rosenbrock(point[None])[0]),
        "ndim_problem": dimension,
        "lower_boundary": np.full(dimension, -5.0),
        "upper_boundary": np.full(dimension, 5.0),
    }
    options = {
        "max_function_evaluations": evaluations,
        "seed_rng": seed,
        "mean": np.full(dimension, 3.0),
        "sigma": 3.0,
        "n_individuals": samples,
        "is_restart": False,  # ours leaves restarts to its user
        "verbose": 0,
    }
    theirs = import_module("pypop7.optimizers.es.mmes")
    return float(theirs.MMES(problem, options).optimize()["best_so_far_y"])


if __name__ == "__main__":
    main()
