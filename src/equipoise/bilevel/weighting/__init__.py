"""Task weights learned on validation data (thesis, section 3.3): a bilevel problem on top of an objective."""

from equipoise.bilevel.weighting.hold_out import HeldOut, halves, hold_out
from equipoise.bilevel.weighting.registry import WeightingInfo, weighting, weightings
from equipoise.bilevel.weighting.task_weighting import TaskWeighting

__all__ = ["HeldOut", "TaskWeighting", "WeightingInfo", "halves", "hold_out", "weighting", "weightings"]
