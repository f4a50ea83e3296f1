"""The three problems of section 4.6.1, and how far a point is from their solution sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError, near_misses

__all__ = ["PROBLEMS", "Problem", "problem"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
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


def _shift_l1(dimension: int) -> Problem:
    scale = 10.0 ** (2 * np.arange(dimension) / (dimension - 1))

    def outputs(x: Array) -> Array:
        return np.stack([np.abs(x - 0.01) @ scale, np.abs(x + 0.01) @ scale], axis=1)

    return Problem(
        "shift-l1",
        "shift l₁-ellipsoid (4.21)",
        outputs,
        lambda x: float(np.linalg.norm(np.maximum(np.abs(x) - 0.01, 0.0))),
    )


def _shift_half(dimension: int) -> Problem:
    def outputs(x: Array) -> Array:
        return np.stack([np.sqrt(np.abs(x - 0.1)).sum(axis=1), np.sqrt(np.abs(x + 0.1)).sum(axis=1)], axis=1)

    # The front is concave; what methods can end in is the corners, every coordinate at -0.1 or 0.1.
    return Problem("shift-half", "shift l½-ellipsoid (4.22)", outputs, lambda x: float(np.linalg.norm(np.abs(x) - 0.1)))


def _mixed(dimension: int) -> Problem:
    steep = 10.0 ** (2 * np.arange(dimension) / (dimension - 1))
    scale = 10.0 ** (np.arange(dimension) / (dimension - 1))

    def outputs(x: Array) -> Array:
        scaled = scale * x
        rastrigin = 10.0 * dimension + (scaled**2 - 10.0 * np.cos(2 * np.pi * scaled)).sum(axis=1)
        return np.stack([np.sqrt(np.abs(x)) @ steep, rastrigin], axis=1)

    return Problem("mixed", "mixed ellipsoid-Rastrigin 10 (4.23)", outputs, lambda x: float(np.linalg.norm(x)))


PROBLEMS: dict[str, Callable[[int], Problem]] = {"shift-l1": _shift_l1, "shift-half": _shift_half, "mixed": _mixed}


def problem(name: str, dimension: int) -> Problem:
    """Makes a problem by its name.

    Raises:
        InputError: there is none of that name, or fewer than two dimensions.

    Example:
        >>> import numpy as np
        >>> problem("shift-l1", 5).distance(np.array([0.0, 0.01, -0.01, 0.0, 3.01]))
        3.0
    """
    if name not in PROBLEMS:
        raise InputError(f'there is no problem "{name}"; there are {", ".join(PROBLEMS)}.{near_misses(name, PROBLEMS)}')
    if dimension < 2:
        raise InputError(f"dimension is {dimension}; the problems need at least 2")
    return PROBLEMS[name](dimension)
