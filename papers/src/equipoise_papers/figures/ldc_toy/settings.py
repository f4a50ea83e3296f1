"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise_papers.toys import STARTS, Sign, TwoTasks

__all__ = ["METHODS", "Settings"]

METHODS = ("ls", "mgda", "famo", "ldc-mtl:penalty=1,tau=ones,initial=[2.1, 21.0]")


@dataclass(frozen=True)
class Settings:
    """The experiment of appendix A.3 of the LDC-MTL paper.

    Attributes:
        methods: balancers that look at losses or the Gramian, as studies write them.
        starts: starting points.
        steps: of each trajectory.
        lr: of Adam.
        sign: of :class:`~equipoise_papers.toys.TwoTasks`.
        timed_steps: steps of real training from which the run time is taken.
        repeats: how often each method is timed.
        record_every: how often positions are recorded.

    Raises:
        InputError: a number that is out of range, or no method.
    """

    methods: tuple[str, ...] = METHODS
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
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"lr must be a positive step size; got {self.lr}")

    @property
    def problem(self) -> TwoTasks:
        """The toy problem, the first loss times 0.1."""
        return TwoTasks(self.sign, factor=True)
