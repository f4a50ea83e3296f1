"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equipoise.errors import InputError
from equipoise_papers.commands import methods_read, option
from equipoise_papers.figures import figure
from equipoise_papers.toys import STARTS, Sign

if TYPE_CHECKING:
    from equipoise_papers.toys import TwoTasks

__all__ = ["METHODS", "LDCToySettings"]

METHODS = ("ls", "mgda", "famo", "ldc-mtl:penalty=1,tau=ones,initial=[2.1, 21.0]")


@figure("Figure 1 of LDC-MTL: trajectories and run time on the two-task toy problem.")
@dataclass(frozen=True)
class LDCToySettings:
    """The experiment of appendix A.3 of the LDC-MTL paper.

    Attributes:
        methods: balancers that look at losses or the Gramian, as studies write them.
        starts: starting points.
        steps: of each trajectory.
        lr: of Adam.
        sign: of f2: ``released``, as published pictures have it, or ``paper``, the formula.
        timed_steps: steps of real training from which the run time is taken, each time.
        repeats: how often each method is timed.
        record_every: steps between two recorded positions.

    Raises:
        InputError: a number that is out of range, or no method.
    """

    methods: tuple[str, ...] = option(METHODS, read=methods_read)
    starts: tuple[tuple[float, float], ...] = STARTS
    steps: int = 50_000
    lr: float = 1e-3
    sign: Sign = "released"
    timed_steps: int = 1000
    repeats: int = 5
    record_every: int = 50

    def __post_init__(self) -> None:
        if not self.methods:
            raise InputError('name at least one method, such as "ls,ldc-mtl"')
        for name in ("steps", "timed_steps", "repeats", "record_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"lr must be a positive step size; got {self.lr}")

    @property
    def problem(self) -> TwoTasks:
        """The toy problem, the first loss times 0.1."""
        from equipoise_papers.toys import TwoTasks

        return TwoTasks(self.sign, factor=True)
