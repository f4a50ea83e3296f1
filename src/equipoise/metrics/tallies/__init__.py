"""Metrics that are gathered batch by batch: feed a tally with predictions and targets, then ask for its summary."""

from equipoise.metrics.tallies.base import Evaluation, Quantity, Tally
from equipoise.metrics.tallies.classification import BinaryTally, ClassTally, ConfusionMatrix, SegmentationTally
from equipoise.metrics.tallies.regression import DepthTally, ErrorTally, NormalTally

__all__ = [
    "BinaryTally",
    "ClassTally",
    "ConfusionMatrix",
    "DepthTally",
    "ErrorTally",
    "Evaluation",
    "NormalTally",
    "Quantity",
    "SegmentationTally",
    "Tally",
]
