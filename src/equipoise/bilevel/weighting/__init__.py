"""Task weights learned on validation data (thesis, section 3.3): a bilevel problem on top of an objective.

``task_weighting.py`` :class:`TaskWeighting`, which stands where a :class:`~equipoise.MultiTaskOptimizer` would
``problem.py``        weights, training losses and validation losses as a problem of two levels
``look_ahead.py``     MOML and MoCo: hypergradients of the weights from virtual steps, exact and fast for one step
``registry.py``       the methods by name, with their options
``hold_out.py``       a fixed part of the training data put aside for the weights
``halves.py``         a batch cut in two where there is no such part
``validation.py``     endless batches from a loader whose place can be saved
"""

from equipoise.bilevel.weighting.halves import halves
from equipoise.bilevel.weighting.hold_out import HeldOut, hold_out
from equipoise.bilevel.weighting.registry import WeightingInfo, weighting, weightings
from equipoise.bilevel.weighting.task_weighting import TaskWeighting

__all__ = ["HeldOut", "TaskWeighting", "WeightingInfo", "halves", "hold_out", "weighting", "weightings"]
