"""One balanced backward pass: where losses, gradient engine and balancer meet, ending in ``.grad``.

Both the drop-in and :class:`~equipoise.MultiTaskOptimizer` come through :class:`~equipoise.step.balancing.Balancing`. What the
balancer needs decides the way:

- :mod:`~equipoise.step.by_losses`: one ordinary backward pass of the weighted losses;
- :mod:`~equipoise.step.by_gradients`: one backward pass per task into the engine's rows, then the weighted sum of the rows;
- :mod:`~equipoise.step.by_features`: the same down to a module's output only, and one backward pass through what lies below.

A step may consist of several micro-batches, and a loss may be a callable that is evaluated when its turn comes; in both cases
no more than one graph is alive at a time.
"""

from equipoise.step.report import StepReport

__all__ = ["StepReport"]
