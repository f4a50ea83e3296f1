"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from equipoise.errors import InputError
from equipoise_papers.figures import figure

__all__ = ["INITIALIZATIONS", "METHODS", "ForumSyntheticSettings"]

INITIALIZATIONS = tuple((alpha, omega) for alpha in (0.0, 2.0) for omega in ((0.0, 3.0), (3.0, 3.0)))
METHODS = ("moml", "moco", "forum")
Start: TypeAlias = Literal["warm", "cold"]


@figure("Figure A.1 of the thesis: MOML, MoCo and FORUM on a problem whose optimal set is known.")
@dataclass(frozen=True)
class ForumSyntheticSettings:
    """The setting of appendix A.1.4.

    Attributes:
        steps: K, outer steps.
        lower_steps: T, steps of the lower level.
        lr: μ, of gradient descent on the upper level.
        lower_lr: η, of the lower level.
        rho: ρ of FORUM.
        start: where the lower level's steps begin.

    Raises:
        InputError: a number that is out of range.
    """

    steps: int = 200
    lower_steps: int = 50
    lr: float = 0.3
    lower_lr: float = 0.05
    rho: float = 0.3
    start: Start = "warm"

    def __post_init__(self) -> None:
        for name in ("steps", "lower_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        for name in ("lr", "lower_lr"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be a positive step size; got {getattr(self, name)}")
        if self.rho < 0:
            raise InputError(f"rho must be at least 0; got {self.rho}")
        if self.start not in get_args(Start):
            raise InputError(f'start must be "warm" or "cold"; got "{self.start}"')
