"""What can go wrong with an evaluation, and how it is counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from equipoise.blackbox.arrays import Array

__all__ = ["Answer", "Failures"]


@dataclass(frozen=True)
class Answer:
    """What came of one point: its outputs [m], or why there are none.

    Attributes:
        outputs: [m], or ``None``.
        kind: ``"exception"``, ``"timeout"``, ``"crash"`` (the process died) or ``"shape"``; empty where there are outputs.
        message: one line on what happened.
    """

    outputs: Array | None
    kind: str = ""
    message: str = ""


@dataclass
class Failures:
    """How many evaluations failed, and how.

    Attributes:
        counts: kind → number. Kinds are those of :class:`Answer`, and ``"not finite"``.
        first: kind → what the first of them said.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def add(self, kind: str, message: str) -> None:
        """Counts one."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, message)

    def table(self, answers: list[Answer], objectives: int | None) -> Array | None:
        """The outputs [N, m] of an iteration, rows of failures not a number; counts the failures.

        Args:
            answers: one a row.
            objectives: m if it is known; otherwise that of the first row with outputs.

        Returns:
            The table, or ``None`` where m is still unknown because every evaluation failed.
        """
        known = objectives or next((answer.outputs.size for answer in answers if answer.outputs is not None), None)
        for answer in answers:
            if answer.outputs is None:
                self.add(answer.kind, answer.message)
            elif not np.isfinite(answer.outputs).all():
                self.add("not finite", f"outputs {answer.outputs.tolist()}")
        if known is None:
            return None
        missing = np.full(known, np.nan)
        return np.stack([missing if answer.outputs is None else answer.outputs for answer in answers])

    def __str__(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "none"
