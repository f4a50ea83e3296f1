"""Metrics that are gathered batch by batch: feed a tally with predictions and targets, then ask for its summary.

===================  =====================================================================================
``base.py``          what a tally is
``pieces.py``        what is averaged: all pixels alike, images alike, batches alike
``confusion.py``     the confusion matrix that classes are judged from
``segmentation.py``  mIoU, pixel accuracy
``depth.py``         absolute and relative depth error
``normals.py``       angles between surface normals
``classes.py``       accuracy and macro F1 of one class out of several
``binary.py``        accuracy and F1 of yes or no
``error.py``         mean absolute error
``evaluation.py``    several tallies as the ``evaluate`` of a study's problem
===================  =====================================================================================
"""

from equipoise.metrics.tallies.base import Quantity, Tally
from equipoise.metrics.tallies.binary import BinaryTally
from equipoise.metrics.tallies.classes import ClassTally
from equipoise.metrics.tallies.confusion import ConfusionMatrix
from equipoise.metrics.tallies.depth import DepthTally
from equipoise.metrics.tallies.error import ErrorTally
from equipoise.metrics.tallies.evaluation import Evaluation
from equipoise.metrics.tallies.normals import NormalTally
from equipoise.metrics.tallies.segmentation import SegmentationTally

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
