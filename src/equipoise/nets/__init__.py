"""Networks of the benchmarks, ways to share parameters between tasks, and NORMAL's block between any encoder and its heads."""

from equipoise.nets.celeba import CELEBA_ATTRIBUTES, CelebANet
from equipoise.nets.cleaning import CleaningNet
from equipoise.nets.deeplab import ASPPHead, DeepLab
from equipoise.nets.digits import DigitsNet
from equipoise.nets.normal.dynamics import Dynamics, FirstOrder, HeavyBall, pointwise_map, vector_map
from equipoise.nets.normal.flow import NORMAL, TaskFlow
from equipoise.nets.normal.positions import FixedPositions, LearnedPositions, Positions, PositivePositions, position_groups
from equipoise.nets.normal.solver import Solver
from equipoise.nets.outputs import CITYSCAPES, NYUV2, Output, classes, directions, values
from equipoise.nets.qm9 import QM9_TASKS, ContinuousFilterNet, QM9Net
from equipoise.nets.resnet import ResNet
from equipoise.nets.segnet import SegNet, SegNetMTAN
from equipoise.nets.sharing import CGC, LTB, PLE, Branched, CrossStitch, CrossStitchUnit, DSelectK, HardSharing, MMoE
from equipoise.nets.weights import load_weights

__all__ = [
    "CELEBA_ATTRIBUTES",
    "CGC",
    "CITYSCAPES",
    "LTB",
    "NORMAL",
    "NYUV2",
    "PLE",
    "QM9_TASKS",
    "ASPPHead",
    "Branched",
    "CelebANet",
    "CleaningNet",
    "ContinuousFilterNet",
    "CrossStitch",
    "CrossStitchUnit",
    "DSelectK",
    "DeepLab",
    "DigitsNet",
    "Dynamics",
    "FirstOrder",
    "FixedPositions",
    "HardSharing",
    "HeavyBall",
    "LearnedPositions",
    "MMoE",
    "Output",
    "Positions",
    "PositivePositions",
    "QM9Net",
    "ResNet",
    "SegNet",
    "SegNetMTAN",
    "Solver",
    "TaskFlow",
    "classes",
    "directions",
    "load_weights",
    "pointwise_map",
    "position_groups",
    "values",
    "vector_map",
]
