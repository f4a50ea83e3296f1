"""One search, several searches on one budget, and a genetic algorithm: ``python -m benchmarks.fronts [--seeds 3]``.

It is no family of ``python -m benchmarks``, as it compares what is reached, not speed: hypervolume of F(x) = (mean (x − 1)²,
mean (x + 1)²) from x = (3, …, 3), reference (6, 6), of which the front covers 33.3.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import table
from equipoise.blackbox import front, minimize, undominated
from equipoise.sweep.front import hypervolume

__all__ = ["main"]

Array = NDArray[np.float64]
REFERENCE = (6.0, 6.0)
EVALUATIONS = 20_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one row per dimension and way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fronts", description="Fronts on one budget.")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    seeds = range(parser.parse_args(arguments).seeds)
    rows = []
    for dimension in (20, 200):
        found: dict[str, list[float]] = {}
        for seed in seeds:
            for name, outputs in _all(np.full(dimension, 3.0), seed).items():
                found.setdefault(name, []).append(_volume(outputs))
        rows += [[str(dimension), name, f"{np.mean(own):.1f}", f"{min(own):.1f}"] for name, own in found.items()]
    print(table(["d", "way", "hypervolume", "least"], rows, left=2))


def _problem(x: Array) -> Array:
    return np.stack([((x - 1.0) ** 2).mean(axis=1), ((x + 1.0) ** 2).mean(axis=1)], axis=1)


def _volume(outputs: Array) -> float:
    inside = outputs[(outputs < REFERENCE).all(axis=1)]
    return hypervolume(inside.tolist(), REFERENCE) if len(inside) else 0.0


def _all(start: Array, seed: int) -> dict[str, Array]:
    one = minimize(_problem, start, evaluations=EVALUATIONS, samples=20, lr=1.0, seed=seed, batched=True, archive="front")
    found = {"one search: its point": _problem(one.x[None]), "one search: all it evaluated": one.outputs}
    for points in (5, 9):
        several = front(_problem, start, points=points, evaluations=EVALUATIONS, seed=seed, batched=True)
        found[f"front, {points} points"] = several.outputs
        found[f"front, {points} points: all it evaluated"] = several.outputs_of_points
    return {**found, "NSGA-II, 100 points": _nsga2(start, np.random.default_rng(seed))}


def _nsga2(start: Array, generator: np.random.Generator, size: int = 100) -> Array:
    """Deb et al. 2002, with simulated binary crossover (η = 15) and polynomial mutation (η = 20, one coordinate in d)."""
    points = start + generator.standard_normal((size, start.size))
    outputs = _problem(points)
    width = 2.0 * (np.abs(start).max() + 5.0)
    for _ in range(EVALUATIONS // size - 1):
        rank, crowd = _ranked(outputs)

        def parents(rank: Array = rank, crowd: Array = crowd, points: Array = points) -> Array:
            one, other = generator.integers(0, size, (2, size))
            better = (rank[one] < rank[other]) | ((rank[one] == rank[other]) & (crowd[one] > crowd[other]))
            return points[np.where(better, one, other)]

        mother, father, u = parents(), parents(), generator.random(points.shape)
        spread = np.where(u < 0.5, 2.0 * u, 1.0 / (2.0 - 2.0 * u)) ** (1.0 / 16.0)
        child = 0.5 * ((1.0 + spread) * mother + (1.0 - spread) * father)
        child = np.where(generator.random(child.shape) < 0.5, child, mother)
        u = generator.random(child.shape)
        change = np.where(u < 0.5, (2.0 * u) ** (1.0 / 21.0) - 1.0, 1.0 - (2.0 - 2.0 * u) ** (1.0 / 21.0))
        child += np.where(generator.random(child.shape) < 1.0 / start.size, width * change, 0.0)
        points, outputs = np.concatenate([points, child]), np.concatenate([outputs, _problem(child)])
        rank, crowd = _ranked(outputs)
        kept = np.lexsort((-crowd, rank))[:size]
        points, outputs = points[kept], outputs[kept]
    return outputs


def _ranked(outputs: Array) -> tuple[Array, Array]:
    """Number of the front that each row is in, and its crowding distance there."""
    rank, crowd, left, number = np.zeros(len(outputs)), np.zeros(len(outputs)), np.arange(len(outputs)), 0
    while left.size:
        first = undominated(outputs[left])
        own = left[first]
        rank[own] = number
        for values in outputs.T:
            order = own[values[own].argsort()]
            crowd[order[[0, -1]]] = np.inf
            span = values[order[-1]] - values[order[0]]
            if order.size > 2 and span > 0:
                crowd[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
        left, number = left[~first], number + 1
    return rank, crowd


if __name__ == "__main__":
    main()
