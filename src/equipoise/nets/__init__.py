"""Networks of the benchmarks, and NORMAL's block, which fits between any encoder and its heads."""

from equipoise.nets.digits import DigitsNet
from equipoise.nets.normal import (
    NORMAL,
    FirstOrder,
    FixedPositions,
    HeavyBall,
    LearnedPositions,
    PositivePositions,
    Solver,
    TaskFlow,
    position_groups,
)

__all__ = [
    "NORMAL",
    "DigitsNet",
    "FirstOrder",
    "FixedPositions",
    "HeavyBall",
    "LearnedPositions",
    "PositivePositions",
    "Solver",
    "TaskFlow",
    "position_groups",
]
