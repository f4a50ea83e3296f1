"""Ordinary and adversarial Gramians that every solver has to cope with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ordinary(generator: np.random.Generator, tasks: int) -> Array:
    """Gradients [K, 2K + 8] with a common part and norms that differ by a factor of a few: well conditioned."""
    gradients = generator.standard_normal((tasks, 2 * tasks + 8)) + 0.3 * generator.standard_normal(2 * tasks + 8)
    return gradients * np.exp(generator.standard_normal((tasks, 1)))


def gramians(generator: np.random.Generator, sizes: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Names and Gramians: every kind below for every size and every rank from 0 to full, in both precisions."""
    for tasks in sizes:
        for rank in sorted({0, 1, 2, max(1, tasks // 2), max(1, tasks - 1), tasks, 2 * tasks + 3}):
            base = generator.standard_normal((tasks, max(rank, 1))) * (rank > 0)
            for kind, gradients in _kinds(generator, base):
                name = f"{kind}, {tasks} tasks, rank {rank}"
                yield name, gradients @ gradients.T
                single = gradients.astype(np.float32)
                with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                    rounded = (single @ single.T).astype(np.float64)
                if np.isfinite(rounded).all():
                    yield f"{name}, single precision", rounded
            noise = 1e-6 * generator.standard_normal((tasks, tasks))
            yield f"asymmetric and indefinite, {tasks} tasks, rank {rank}", base @ base.T * (1.0 + noise)
        yield f"regular simplex around 0, {tasks} tasks", np.eye(tasks) - 1.0 / tasks
        yield f"regular simplex close to 0, {tasks} tasks", np.eye(tasks) - 0.999 / tasks


def _kinds(generator: np.random.Generator, base: Array) -> Iterator[tuple[str, Array]]:
    tasks = base.shape[0]
    mixed = 10.0 ** generator.uniform(-10, 15, (tasks, 1))
    signs = np.where(generator.random((tasks, 1)) < 0.5, 1.0, -1.0)
    half = tasks // 2
    yield "plain", base
    yield "tiny", base * 1e-10
    yield "huge", base * 1e15
    yield "mixed scales", base * mixed
    yield "moderately mixed scales", base * 10.0 ** generator.uniform(-3, 3, (tasks, 1))
    duplicated = base.copy()
    duplicated[generator.integers(tasks, size=max(1, half))] = base[0]
    yield "duplicated rows", duplicated
    sparse = base.copy()
    sparse[generator.random(tasks) < 0.3] = 0.0
    yield "zero rows", sparse
    opposed = base.copy()
    opposed[half : 2 * half] = -base[:half]
    yield "opposed pairs", opposed
    yield "opposed pairs of mixed scales", opposed * mixed
    for angle in (1e-3, 1e-6, 1e-9):
        yield f"collinear to {angle}", base[:1] + angle * base
        yield f"opposed to {angle}", signs * (base[:1] + angle * base)
        yield f"opposed to {angle}, mixed scales", mixed * signs * (base[:1] + angle * base)
    yield "all positive", np.abs(base)
    centered = base - base.mean(axis=0)
    yield "Pareto-stationary", centered
    yield "nearly Pareto-stationary", base - (1.0 + 1e-9) * base.mean(axis=0)
    yield "close to Pareto-stationary", base - 1.01 * base.mean(axis=0)
