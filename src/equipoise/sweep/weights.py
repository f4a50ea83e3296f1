"""Weights on the simplex as dimensions of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution

from equipoise.errors import InputError
from equipoise.sweep.dimensions import Range, read_dimension, significant

__all__ = ["Weights", "read_weights"]

_LOWEST, _HIGHEST = 0.001, 1.0  # losses in different units easily differ by a factor of hundreds
_EDGE = 1e-9  # keeps the logarithm of a uniform number finite


@dataclass(frozen=True)
class Weights:
    """Weights ``w_k = K x_k / Σ_j x_j``, which sum to K as equal weights do.

    Two ways of drawing the ``x_k``. ``"log"``: log-uniformly in ``[low, high]``, one by one, so that no weight is more than
    ``high / low`` times another; losses of very different scale need weights of very different size. ``"dirichlet"``:
    ``x_k = −log u_k`` with ``u_k`` uniform in (0, 1), which makes ``w / K`` uniform on the simplex (Dirichlet with all
    parameters 1).

    Example:
        >>> weights = Weights(("left", "ink"))
        >>> weights.values({"weights.left": 0.1, "weights.ink": 0.3})
        [0.5, 1.5]
    """

    tasks: tuple[str, ...]
    kind: str = "log"
    low: float = _LOWEST
    high: float = _HIGHEST

    def __post_init__(self) -> None:
        if len(self.tasks) < 2:
            raise InputError(f"weights of {len(self.tasks)} task cannot be swept; there must be at least two")

    def distributions(self) -> dict[str, BaseDistribution]:
        """One parameter per task, as Optuna knows it."""
        own = FloatDistribution(self.low, self.high, log=True) if self.kind == "log" else FloatDistribution(_EDGE, 1 - _EDGE)
        return {self._name(task): own for task in self.tasks}

    def equal(self) -> dict[str, float]:
        """Parameters that stand for equal weights."""
        middle = math.sqrt(self.low * self.high) if self.kind == "log" else math.exp(-1)
        return {self._name(task): middle for task in self.tasks}

    def values(self, parameters: Mapping[str, Any]) -> list[float]:
        """The weights that parameters stand for, to four significant digits."""
        drawn = [float(parameters[self._name(task)]) for task in self.tasks]
        sizes = drawn if self.kind == "log" else [-math.log(value) for value in drawn]
        total = math.fsum(sizes)
        return [significant(len(sizes) * size / total) for size in sizes]

    def _name(self, task: str) -> str:
        return f"weights.{task}"

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}:log" if self.kind == "log" else "dirichlet"


def read_weights(given: Any, tasks: tuple[str, ...]) -> Weights:
    """Reads how weights are swept: ``"log"`` (0.001 to 1), a logarithmic range ``"0.01:1:log"``, or ``"dirichlet"``.

    Raises:
        InputError: none of these.
    """
    if isinstance(given, Weights):
        return given
    if given in ("log", "dirichlet"):
        return Weights(tasks, given)
    try:
        dimension = read_dimension("weights", given)
    except InputError as error:
        raise InputError(f'{error}; for weights "log" and "dirichlet" will do, too') from None
    if not isinstance(dimension, Range) or not dimension.log:
        raise InputError(
            f'the weights are to be swept over "{given}"; write a logarithmic range such as 0.01:1:log, or "dirichlet" for '
            "uniform on the simplex"
        )
    return Weights(tasks, "log", dimension.low, dimension.high)
