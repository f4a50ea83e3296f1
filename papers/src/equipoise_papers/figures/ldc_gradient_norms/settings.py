"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from equipoise.errors import InputError
from equipoise_papers.figures import figure

__all__ = ["LDCGradientNormsSettings"]


def _options_read(text: str) -> dict[str, Any]:
    from equipoise.method import read_options

    return read_options(text, text)


@figure("Figures 3 and 7 of LDC-MTL: the gradient that the single loop drops, next to the one it keeps.")
@dataclass(frozen=True)
class LDCGradientNormsSettings:
    """Training of the double loop, next to the single loop.

    Attributes:
        problem: as in a study, such as ``digits``.
        epochs: passes over the training data.
        inner_steps: N, gradient steps of the lower level in each step; 50 in the paper.
        inner_lr: β, their step size; times λ in the paper's formulation.
        seed: of data order and parameters.
        options: further options of :class:`~equipoise.LDCMTL`, the same for both loops, such as ``penalty=1,router=mlp``, or
            ``warm_start=model`` for a z that starts at the model in every step, as Algorithm 2 has it.

    Raises:
        InputError: a number that is out of range.
    """

    problem: str = "digits"
    epochs: int = 10
    inner_steps: int = 50
    inner_lr: float = 0.01
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict, metadata={"read": _options_read, "shown": ""})

    def __post_init__(self) -> None:
        for name in ("epochs", "inner_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        if not self.inner_lr > 0:
            raise InputError(f"inner_lr must be a positive step size; got {self.inner_lr}")
        taken = {"double_loop", "inner_steps", "inner_lr"} & set(self.options)
        if taken:
            raise InputError(f"{', '.join(sorted(taken))} is set by the figure itself; leave it out of the options")
