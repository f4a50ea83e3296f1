"""What a search ends with, and what a callback sees on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from equipoise.blackbox.arrays import Array
from equipoise.blackbox.evaluation import Failures
from equipoise.blackbox.optimizers import Optimizer

__all__ = ["Progress", "Result"]


@dataclass(frozen=True)
class Progress:
    """One iteration, as a callback sees it.

    Attributes:
        iteration: how many are done, this one included.
        evaluations: how many points have been evaluated.
        seconds: since the beginning, earlier parts of a resumed search included.
        points: those of this iteration [N (+1), d].
        outputs: theirs [N (+1), m]; rows of failed evaluations are not a number.
        optimizer: after its update.
        failures: up to now.
    """

    iteration: int
    evaluations: int
    seconds: float
    points: Array
    outputs: Array
    optimizer: Optimizer
    failures: Failures


@dataclass(frozen=True)
class Result:
    """What a search ended with.

    Attributes:
        x: the mean of the search distribution [d].
        std: its standard deviations [d].
        weights: λ [m] of the last iteration; ``None`` if nothing could be evaluated.
        objectives: for each iteration, the mean outputs of the samples that did not fail [iterations, m].
        iterations: how many.
        evaluations: points evaluated.
        failures: counted by kind.
        seconds: spent.
        stopped: why it ended: ``iterations``, ``evaluations``, ``seconds``, ``callback`` or ``interrupted``.
        optimizer: to go on from.
    """

    x: Array
    std: Array
    weights: Array | None
    objectives: Array
    iterations: int
    evaluations: int
    failures: Failures = field(repr=False)
    seconds: float
    stopped: str
    optimizer: Optimizer = field(repr=False)
