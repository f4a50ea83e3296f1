"""What a comparison of multi-task methods is measured by.

=================  =====================================================================================
``metric.py``      a metric: its name, its task, its direction; mean and deviation over seeds
``tallies/``       metrics gathered batch by batch: segmentation, depth, normals, classes, errors
``delta_m.py``     Δm and Δ_p: the mean change against single-task training
``mean_rank.py``   MR, and the plain mean over tasks
``conflict.py``    how often tasks pull against each other
``paired.py``      compares two methods over seeds
=================  =====================================================================================
"""

from equipoise.metrics.conflict import ConflictTally
from equipoise.metrics.delta_m import delta_m, delta_p
from equipoise.metrics.mean_rank import average_metric, mean_rank
from equipoise.metrics.metric import Metric, Spread, spread
from equipoise.metrics.paired import Comparison, holm, paired_comparison
from equipoise.metrics.tallies import (
    BinaryTally,
    ClassTally,
    ConfusionMatrix,
    DepthTally,
    ErrorTally,
    Evaluation,
    NormalTally,
    Quantity,
    SegmentationTally,
    Tally,
)

__all__ = [
    "BinaryTally",
    "ClassTally",
    "Comparison",
    "ConflictTally",
    "ConfusionMatrix",
    "DepthTally",
    "ErrorTally",
    "Evaluation",
    "Metric",
    "NormalTally",
    "Quantity",
    "SegmentationTally",
    "Spread",
    "Tally",
    "average_metric",
    "delta_m",
    "delta_p",
    "holm",
    "mean_rank",
    "paired_comparison",
    "spread",
]
