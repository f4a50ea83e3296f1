"""What a comparison of multi-task methods is measured by: metrics, and how methods are compared by them."""

from equipoise.metrics.conflict import ConflictTally
from equipoise.metrics.metric import Metric, Spread, spread
from equipoise.metrics.paired import Comparison, holm, paired_comparison
from equipoise.metrics.summaries import average_metric, delta_m, delta_p, mean_rank
from equipoise.metrics.tallies.base import Evaluation, Quantity, Tally
from equipoise.metrics.tallies.classification import BinaryTally, ClassTally, ConfusionMatrix, SegmentationTally
from equipoise.metrics.tallies.regression import DepthTally, ErrorTally, NormalTally

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
