"""Metrics that are gathered batch by batch: feed a tally with predictions and targets, then ask for its summary.

=====================  =====================================================================================
``base.py``            what a tally is; what is averaged: pixels, images or batches alike; several tallies at once
``classification.py``  accuracy and F1, of one class out of several or of yes and no; mIoU, pixel accuracy
``regression.py``      mean absolute error, depth errors, angles between surface normals
=====================  =====================================================================================
"""

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
