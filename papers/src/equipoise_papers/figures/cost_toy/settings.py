"""What is run for the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from equipoise.errors import InputError
from equipoise_papers.commands import methods_read, option
from equipoise_papers.figures import figure
from equipoise_papers.toys import STARTS, Sign

if TYPE_CHECKING:
    from equipoise.teleport import Trigger

__all__ = ["BALANCERS", "CostToySettings", "DeltaKind", "History", "Teleporting"]

History: TypeAlias = Literal["keep", "reuse", "reset"]
DeltaKind: TypeAlias = Literal["dense", "lowrank"]
BALANCERS = ("ls", "mgda", "cagrad", "nash-mtl", "fairgrad:alpha=2")
"""FairGrad with α = 1 has the weights of Nash-MTL, therefore α = 2."""


def _dominated() -> Trigger:
    from equipoise.teleport import Dominated  # with torch, for which a list of options need not wait

    return Dominated()


@dataclass(frozen=True)
class Teleporting:
    """How COST is set: the options of :class:`equipoise.teleport.COST` of the same meaning.

    Attributes:
        trigger: the condition on the Gramian.
        delta: the shape of Δθ: ``dense``, or ``lowrank`` (rank 1, of θ as a matrix of one row).
        gamma: γ of eq. 11; 0.1 as in the paper.
        radius: δ, norm of the perturbations.
        samples: ñ, perturbations in an inner step.
        inner_steps: steps of Adam on Δθ.
        inner_lr: learning rate of that Adam.
        start_step: first step in which to teleport, counted from 0.
        stop_step: first step in which to teleport no more; ``None`` for no end.
        cooldown: steps from one attempt to the next at least.
        relative: divide each loss by its size (COST's ``scaling``).
        guard: land only where losses are kept and conflict is not worse.
        tolerance: relative loss change that the guard lets pass.
        history: what becomes of Adam's moments after a landing: kept, reused (eq. 13) or reset.
        check_every: steps from one Gramian to the next for balancers that do not need it.

    Raises:
        InputError: a number that is out of range.
    """

    trigger: Trigger = field(default_factory=_dominated, metadata={"hidden": True})
    delta: DeltaKind = "dense"
    gamma: float = 0.1
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
        from equipoise.teleport import Guard, PaperFormulation, Schedule

        PaperFormulation(self.gamma, self.radius)
        Schedule(start_step=self.start_step, stop_step=self.stop_step, cooldown=self.cooldown)
        Guard(self.tolerance)
        if not self.inner_lr > 0:
            raise InputError(f"inner_lr must be a positive step size; got {self.inner_lr}")
        for name in ("samples", "inner_steps", "check_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        if self.delta not in get_args(DeltaKind):
            raise InputError(f"delta must be one of {', '.join(get_args(DeltaKind))}; got {self.delta}")
        if self.history not in get_args(History):
            raise InputError(f"history must be one of {', '.join(get_args(History))}; got {self.history}")


@figure("Figure 6 of COST: balancers on the two-task toy problem, alone and with COST on top.")
@dataclass(frozen=True)
class CostToySettings:
    """The whole experiment.

    Attributes:
        sign: of f2: ``released``, as published pictures have it, or ``paper``, the formula.
        factor: multiply the loss of task 1 by 0.1.
        balancers: with fixed weights, or of the Gramian and without memory; as studies name them.
        starts: where trajectories begin.
        seeds: of the perturbations; without COST nothing is random.
        steps: of a trajectory.
        lr: of Adam.
        teleporting: how COST is set.
        record_every: steps between two recorded positions.

    Raises:
        InputError: nothing to run.
    """

    sign: Sign = "released"
    factor: bool = False
    balancers: tuple[str, ...] = option(BALANCERS, read=methods_read)
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
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"lr must be a positive step size; got {self.lr}")
