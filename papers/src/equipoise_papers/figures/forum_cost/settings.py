"""What is measured for the figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from equipoise.errors import InputError
from equipoise_papers.figures import figure

__all__ = ["METHODS", "ForumCostSettings"]

METHODS = {"moml": "MOML", "moml-checkpointed": "MOML, checkpointed", "moco": "MoCo", "forum": "FORUM"}


@figure("Figure 3.1 of the thesis: seconds and memory of a bilevel step against T and against p.")
@dataclass(frozen=True)
class ForumCostSettings:
    """The grid of measurements.

    Attributes:
        lower_steps: values of T, at the first number of layers.
        layers: numbers of further shared layers of 512 units, by which p grows, at ``fixed_lower_steps``.
        fixed_lower_steps: T where p varies; 64 in the thesis.
        methods: which.
        batch_size: samples per batch.
        repeats: timed steps; the median counts.
        device: where the steps run.

    Raises:
        InputError: a number that is out of range, or an unknown method.
    """

    lower_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    layers: tuple[int, ...] = (0, 1, 2, 4)
    fixed_lower_steps: int = 64
    methods: tuple[str, ...] = tuple(METHODS)
    batch_size: int = 100
    repeats: int = 3
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        for name in ("fixed_lower_steps", "batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        if not self.lower_steps or min(self.lower_steps) < 1:
            raise InputError(f"lower_steps must be whole numbers of at least 1; got {self.lower_steps}")
        if not self.layers or min(self.layers) < 0:
            raise InputError(f"layers must be whole numbers of at least 0; got {self.layers}")
        for method in self.methods:
            if method not in METHODS:
                raise InputError(f'unknown method "{method}"; expected some of {", ".join(METHODS)}')
        if self.device not in ("cpu", "cuda"):
            raise InputError(f'device must be "cpu" or "cuda"; got "{self.device}"')
