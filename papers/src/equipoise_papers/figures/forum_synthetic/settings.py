"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from equipoise.bilevel.base import Start
from equipoise.errors import InputError

__all__ = ["INITIALIZATIONS", "METHODS", "Settings"]

INITIALIZATIONS = tuple((alpha, omega) for alpha in (0.0, 2.0) for omega in ((0.0, 3.0), (3.0, 3.0)))
METHODS = ("moml", "moco", "forum")


@dataclass(frozen=True)
class Settings:
    """The setting of appendix A.1.4.

    Attributes:
        steps: K, outer steps.
        lower_steps: T.
        step_size: μ, of gradient descent on the upper level.
        lower_step_size: η.
        rho: ρ of FORUM.
        start: of the lower level's steps.

    Raises:
        InputError: a number that is out of range.
    """

    steps: int = 200
    lower_steps: int = 50
    step_size: float = 0.3
    lower_step_size: float = 0.05
    rho: float = 0.3
    start: Start = "warm"

    def __post_init__(self) -> None:
        for name in ("steps", "lower_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        for name in ("step_size", "lower_step_size"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be a positive step size; got {getattr(self, name)}")
        if self.rho < 0:
            raise InputError(f"rho must be at least 0; got {self.rho}")
        if self.start not in get_args(Start):
            raise InputError(f'start must be "warm" or "cold"; got "{self.start}"')
