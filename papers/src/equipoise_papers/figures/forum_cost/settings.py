"""What is measured for the figure."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError

__all__ = ["METHODS", "Settings"]

METHODS = {
    "moml": "MOML",
    "moml-checkpointed": "MOML, checkpointed",
    "moco": "MoCo",
    "forum": "FORUM",
}


@dataclass(frozen=True)
class Settings:
    """The grid of measurements.

    Attributes:
        lower_steps: values of T, at no further layers.
        layers: numbers of further shared layers of 512 units, which is how p grows, at ``fixed_lower_steps``.
        fixed_lower_steps: T where p varies; 64 in the thesis.
        methods: which.
        batch_size: samples a batch.
        repeats: timed steps; the median counts.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: a number that is out of range, or an unknown method.
    """

    lower_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    layers: tuple[int, ...] = (0, 1, 2, 4)
    fixed_lower_steps: int = 64
    methods: tuple[str, ...] = tuple(METHODS)
    batch_size: int = 100
    repeats: int = 3
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("fixed_lower_steps", "batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        if not self.lower_steps or min(self.lower_steps) < 1:
            raise InputError(f"lower_steps must be whole numbers from 1 on; got {self.lower_steps}")
        if not self.layers or min(self.layers) < 0:
            raise InputError(f"layers must be whole numbers from 0 on; got {self.layers}")
        for method in self.methods:
            if method not in METHODS:
                raise InputError(f'unknown method "{method}"; expected some of {", ".join(METHODS)}')
        if self.device not in ("cpu", "cuda"):
            raise InputError(f'device must be "cpu" or "cuda"; got "{self.device}"')
