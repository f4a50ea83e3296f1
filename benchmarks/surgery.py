"""PCGrad, whose answer has no residual but its distance from what projecting the gradients themselves gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

import equipoise as eq
from benchmarks import peers, references
from benchmarks.tables import duration, small, table, times
from benchmarks.timing import race
from equipoise import solvers

__all__ = ["run"]

Say = Callable[[str], None]

VECTOR_LENGTH = 100_000
"""Of the gradients that the reference route projects one by one."""


def run(say: Say, sizes: Sequence[int], *, budget: float = 1.0) -> None:
    """Prints the table."""
    head = ["method", "K", "ours", "difference", "TorchJD", "/ ours", "ours with Gramian", "reference", "/ ours with Gramian"]
    say(
        "### Gradient surgery\n\n"
        f"The reference projects the gradients themselves, here of {VECTOR_LENGTH:,} entries, so beside it stands our time "
        "with the Gramian formed first and the direction afterwards. `difference`: of our direction from that of the vectors, "
        "visited in the same orders, relative.\n\n" + table(head, [_row(tasks, budget) for tasks in sizes])
    )


def _row(tasks: int, budget: float) -> list[str]:
    generator = np.random.default_rng(tasks)
    gradients = generator.standard_normal((tasks, VECTOR_LENGTH))
    # Without most of their mean, about half of the pairs conflict.
    gradients -= 1.2 * gradients.mean(axis=0) * generator.random((tasks, 1))
    orders = solvers.random_orders(tasks, generator)
    result = race(_routes(gradients, orders), seconds=budget * 2.0, rounds=24, warm_up=1, sample=0.004, limit=8.0)
    exact = references.project_vectors(gradients, orders)
    mine = solvers.project_conflicts(gradients @ gradients.T, orders) @ gradients
    cells = [
        "PCGrad",
        str(tasks),
        duration(result.median("ours")),
        small(float(np.linalg.norm(mine - exact) / np.linalg.norm(exact))),
    ]
    if result.rounds("TorchJD"):
        cells += [duration(result.median("TorchJD")), times(result.ratio("TorchJD", "ours"))]
    else:
        cells += ["–", "–"]
    cells += [duration(result.median("ours with Gramian")), duration(result.median("reference"))]
    return [*cells, times(result.ratio("reference", "ours with Gramian"))]


def _routes(gradients: NDArray[np.float64], orders: NDArray[np.intp]) -> dict[str, Callable[[int], object]]:
    rows = torch.from_numpy(gradients).float()
    vectors = rows.numpy()
    gramian = torch.from_numpy(gradients @ gradients.T)
    balancer = eq.PCGrad()
    routes: dict[str, Callable[[int], object]] = {
        "ours": lambda _: balancer.weights(gramian),
        "ours with Gramian": lambda _: torch.mv(rows.T, balancer.weights(eq.gramian(rows)).float()),
        "reference": lambda _: references.project_vectors(vectors, orders),
    }
    if peers.torchjd():
        from torchjd.aggregation import PCGradWeighting

        weighting = PCGradWeighting()
        routes["TorchJD"] = lambda _: weighting(gramian)
    return routes
