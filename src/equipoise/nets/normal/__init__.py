"""NORMAL (chapter 5 of the thesis): tasks at learned positions on a flow of features."""

from equipoise.nets.normal.dynamics import Dynamics, FirstOrder, HeavyBall, pointwise_map, vector_map
from equipoise.nets.normal.flow import NORMAL, TaskFlow
from equipoise.nets.normal.positions import FixedPositions, LearnedPositions, Positions, PositivePositions, position_groups
from equipoise.nets.normal.solver import Solver

__all__ = [
    "NORMAL",
    "Dynamics",
    "FirstOrder",
    "FixedPositions",
    "HeavyBall",
    "LearnedPositions",
    "Positions",
    "PositivePositions",
    "Solver",
    "TaskFlow",
    "pointwise_map",
    "position_groups",
    "vector_map",
]
