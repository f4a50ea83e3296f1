"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from equipoise.errors import InputError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Training of the double loop on ``digits``, next to the single loop.

    Attributes:
        epochs: passes over the training data.
        inner_steps: N, gradient steps of the lower level in each step; 50 in the paper.
        inner_lr: their β.
        seed: of data order and parameters.
        options: further options of :class:`~equipoise.LDCMTL`, the same for both loops.

    Raises:
        InputError: a number that is out of range.
    """

    epochs: int = 10
    inner_steps: int = 50
    inner_lr: float = 0.01
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "inner_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        if not self.inner_lr > 0:
            raise InputError(f"inner_lr must be a positive step size; got {self.inner_lr}")
        taken = {"double_loop", "inner_steps", "inner_lr"} & set(self.options)
        if taken:
            raise InputError(f"{', '.join(sorted(taken))} is set by the figure itself; leave it out of the options")
