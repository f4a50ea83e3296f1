"""What a comparison of multi-task methods is measured by."""

from equipoise.metrics.conflict import ConflictTally
from equipoise.metrics.delta_m import delta_m
from equipoise.metrics.mean_rank import mean_rank
from equipoise.metrics.metric import Metric
from equipoise.metrics.paired import Comparison, holm, paired_comparison
from equipoise.metrics.spread import Spread, spread

__all__ = [
    "Comparison",
    "ConflictTally",
    "Metric",
    "Spread",
    "delta_m",
    "holm",
    "mean_rank",
    "paired_comparison",
    "spread",
]
