"""How long a recipe takes on one modern GPU: an estimate from counted operations, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.study.methods import Method

__all__ = ["OVERHEAD", "THROUGHPUT", "Workload", "hours", "in_words"]

THROUGHPUT = 20e12
"""Operations per second that are assumed: what a data-center GPU of the 2020s sustains in mixed 32-bit training of
convolutions, a fraction of its peak."""
OVERHEAD = 0.03
"""Seconds per step that are assumed on top, for launching kernels and moving the batch."""
TELEPORTS = 1.3
"""Teleporting takes 30 % more (COST, appendix A.6)."""


@dataclass(frozen=True)
class Workload:
    """What one run computes.

    Attributes:
        gigaflops: 10⁹ operations of one forward pass for one row of a batch, counted by torch's ``FlopCounterMode``; a
            multiplication with an addition counts as two.
        batch: rows per step (of all tasks together, where each has rows of its own).
        steps: of an epoch.
        epochs: of a run.
        tasks: K.
        evaluated: rows that are evaluated after each epoch.
        own_inputs: every task has rows of its own, so that one backward pass per task costs no more than one of all.
        forward: nothing is differentiated.
        overhead: seconds per step beside the operations.
    """

    gigaflops: float
    batch: int
    steps: int
    epochs: int
    tasks: int
    evaluated: int
    own_inputs: bool = False
    forward: bool = False
    overhead: float = OVERHEAD


def hours(workload: Workload, method: Method | None, epochs: int | None = None) -> float:
    """Hours of one run; of a single-task run without a method.

    A backward pass counts as two forward passes. Methods that need the losses alone take one backward pass, others one per
    task, bilevel ones those and one in each step of the lower level, and one more.
    """
    needs = "losses" if method is None else getattr(method.make(0), "needs", "bilevel")
    backward = 0 if workload.forward else 1 if needs == "losses" else workload.tasks
    a_row = workload.gigaflops * 1e9
    passes = 3 if workload.own_inputs else 1 + 2 * backward
    if needs == "bilevel" and method is not None:
        # T steps of the lower level, the constraint's or the training step's gradient, and the upper level's objectives.
        lower = int(method.options.get("lower_steps", 1))
        backward += lower + 1
        passes += 3 * (lower + 1)
    step = workload.overhead * (1 + 0.5 * max(backward - 1, 0)) + a_row * workload.batch * passes / THROUGHPUT
    if method is not None and method.teleport is not None:
        step *= TELEPORTS
    evaluation = a_row * workload.evaluated / THROUGHPUT + workload.overhead * workload.evaluated / workload.batch / 3
    return (workload.epochs if epochs is None else epochs) * (workload.steps * step + evaluation) / 3600


def in_words(time: float) -> str:
    """Hours as people say them.

    Example:
        >>> in_words(0.05), in_words(0.7), in_words(5.26), in_words(130.0)
        ('3 min', '42 min', '5 h', '5.4 days')
    """
    if time < 1:
        return f"{max(round(60 * time), 1)} min"
    return f"{time:.0f} h" if time < 48 else f"{time / 24:.1f} days"
