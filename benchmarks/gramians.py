"""Task gradients that solvers are timed on: what training gives, and what breaks solvers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FAMILIES", "draws"]

Array = NDArray[np.float64]

FAMILIES = {
    "typical": "a common mean and noise, norms spread over a factor of about ten",
    "hard": "every second task within 0.1 % of another one or of its opposite, norms spread over eight orders of magnitude",
}


def draws(family: str, tasks: int, count: int) -> list[Array]:
    """Task gradients ``[K, 2K + 8]`` of successive steps: the same tasks, with fresh noise of 10 % in each.

    Solvers that start from the previous step's answer so have what they would have in training.
    """
    generator = np.random.default_rng(tasks)
    columns = 2 * tasks + 8
    if family == "typical":
        base = generator.standard_normal((tasks, columns)) + 0.3 * generator.standard_normal(columns)
        norms = np.exp(0.6 * generator.standard_normal(tasks))
        noise = 0.1
    else:
        base = generator.standard_normal((tasks, columns))
        signs = np.where(generator.random(tasks // 2) < 0.5, -1.0, 1.0)
        base[1::2] = signs[:, None] * base[0 : 2 * (tasks // 2) : 2]
        norms = 10.0 ** generator.uniform(-4.0, 4.0, tasks)
        noise = 1e-3
    return [norms[:, None] * (base + noise * generator.standard_normal(base.shape)) for _ in range(count)]
