"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from equipoise.errors import InputError
from equipoise.teleport import Dominated, Guard, PaperFormulation, Schedule, Trigger
from equipoise_papers.toys import STARTS, Sign

__all__ = ["BALANCERS", "History", "Settings", "Teleporting"]

History: TypeAlias = Literal["keep", "reuse", "reset"]
BALANCERS = ("ls", "mgda", "cagrad", "nash-mtl", "fairgrad:alpha=2")
"""FairGrad with α = 1 has the weights of Nash-MTL, therefore α = 2."""


@dataclass(frozen=True)
class Teleporting:
    """How COST is set: the options of :class:`equipoise.teleport.COST` of the same meaning.

    Attributes:
        trigger: the condition on the Gramian.
        gamma: γ of eq. 11.
        radius: δ, norm of the perturbations.
        samples: ñ, perturbations in an inner step.
        inner_steps: steps of Adam on Δθ.
        inner_lr: its learning rate.
        start_step: first step after which to teleport, counted from 0.
        stop_step: first step after which not to any more; ``None`` for no end.
        cooldown: steps from one attempt to the next at least.
        relative: divide each loss by its size (COST's ``scaling``).
        guard: whether a landing may be refused.
        tolerance: of the guard.
        history: what becomes of Adam's moments after a landing.
        check_every: how often the Gramian is formed for balancers that do not need it.

    Raises:
        InputError: a number that is out of range.
    """

    trigger: Trigger = field(default_factory=Dominated)
    gamma: float = 1.0
    radius: float = 1.0
    samples: int = 5
    inner_steps: int = 100
    inner_lr: float = 0.1
    start_step: int = 2000
    stop_step: int | None = 20_000
    cooldown: int = 1000
    relative: bool = False
    guard: bool = False
    tolerance: float = 0.05
    history: History = "reuse"
    check_every: int = 50

    def __post_init__(self) -> None:
        PaperFormulation(self.gamma, self.radius)
        Schedule(start_step=self.start_step, stop_step=self.stop_step, cooldown=self.cooldown)
        Guard(self.tolerance)
        if not self.inner_lr > 0:
            raise InputError(f"inner_lr must be a positive step size; got {self.inner_lr}")
        for name in ("samples", "inner_steps", "check_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        if self.history not in get_args(History):
            raise InputError(f"history must be one of {', '.join(get_args(History))}; got {self.history}")


@dataclass(frozen=True)
class Settings:
    """The whole experiment.

    Attributes:
        sign: of the problem.
        factor: of the problem.
        balancers: as studies name them, such as ``"fairgrad:alpha=2"``.
        starts: where trajectories begin.
        seeds: of the perturbations; without COST nothing is random.
        steps: a trajectory has.
        lr: of Adam.
        teleporting: how COST is set.
        record_every: steps between two recorded positions.

    Raises:
        InputError: nothing to run.
    """

    sign: Sign = "released"
    factor: bool = False
    balancers: tuple[str, ...] = BALANCERS
    starts: tuple[tuple[float, float], ...] = STARTS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 30_000
    lr: float = 1e-3
    teleporting: Teleporting = field(default_factory=Teleporting)
    record_every: int = 10

    def __post_init__(self) -> None:
        for name in ("balancers", "starts", "seeds"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty; give at least one")
        for name in ("steps", "record_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"lr must be a positive step size; got {self.lr}")
