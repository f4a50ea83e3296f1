"""What all bilevel solvers have in common: one interface, state, a report, and steps that happen whole or not at all."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Required, TypedDict, get_args

import torch
from torch import Tensor

from equipoise.bilevel.lower import take
from equipoise.bilevel.outer_optimizers import OuterOptimizers
from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.errors import InputError, NonFiniteError
from equipoise.states import Anything, Listed, Maybe, Of, Text, Whole, read_model, read_optimizer, read_state

__all__ = ["BilevelReport", "BilevelSolver", "LowerLevel", "Start", "check_upper"]


@dataclass(frozen=True)
class BilevelReport:
    """Diagnostics of one step of a bilevel solver, at the point before the variables moved.

    Attributes:
        step: index of the step, counted from 0.
        objectives: names of the m upper objectives.
        upper: their values F ``[m]``, detached: at ω_T for methods that unroll the lower level, at ω otherwise.
        lower: f(α, ω̃^T), the lower level after its T steps; for methods that unroll the lower level, f(α, ω_{T−1}) on the
            batch of the last step, for at ω_T they evaluate F alone.
        weights: λ ``[m]`` of the objectives in the step taken (float64, CPU), FORUM's being the average λ̃; ``None`` where a
            balancer gave a direction.
        multiplier: ν of the constraint; ``None`` for methods without one.
        constraint: q̃(z) = f(α, ω) − f(α, ω̃^T); ``None`` for methods without a constraint.
        stationarity: 𝒦(z) = ‖Σ λ_i ∇F_i + ν ∇q̃‖², the squared length of the direction (for BVFIM without θω); for methods
            that unroll the lower level, of the combined hypergradient.
    """

    step: int
    objectives: tuple[str, ...]
    upper: Tensor
    lower: float
    weights: Tensor | None
    multiplier: float | None
    constraint: float | None
    stationarity: float


Start = Literal["warm", "cold"]


class LowerLevel(TypedDict, total=False):
    """How a solver solves the lower level: what every solver's constructor takes beside arguments of its own.

    Attributes:
        lower_steps: T, gradient steps on the lower level in every outer step.
        lower_lr: their step size η.
        start: whether the lower level's steps start ``"warm"``, from the present ω, as they do if this is left out, or
            ``"cold"``, from the ω that the solver was made with.
    """

    lower_steps: Required[int]
    lower_lr: Required[float]
    start: Start


class BilevelSolver(ABC):
    """Moves the variables of a bilevel problem, one outer step per call.

    Attributes:
        moves_both: whether the torch optimizers update both levels, or α alone.
        last: the report of the last step.
        steps: how many steps were taken.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, for the outer update.
        lower_steps: see :class:`LowerLevel`, as the two others.
        lower_lr: η.
        start: of the lower level's steps.

    Raises:
        InputError: an argument that cannot be used.
    """

    moves_both: ClassVar[bool]

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        lower_steps: int,
        lower_lr: float,
        start: Start = "warm",
    ) -> None:
        if not isinstance(problem, BilevelProblem):
            raise InputError(f"problem must be a BilevelProblem; got {type(problem).__name__}")
        if isinstance(lower_steps, bool) or not isinstance(lower_steps, int) or lower_steps < 1:
            raise InputError(
                f"lower_steps must be a whole number, at least 1, or the lower level would never be solved; got {lower_steps}"
            )
        if not 0 < lower_lr < float("inf"):
            raise InputError(f"lower_lr must be positive and finite; got {lower_lr}")
        if start not in get_args(Start):
            raise InputError(f'start must be "warm" or "cold"; got "{start}"')
        self.problem = problem
        both = [problem.upper_variables, problem.lower_variables]
        self.optimizers = OuterOptimizers(
            optimizer, both if self.moves_both else both[:1], None if self.moves_both else problem.lower_variables
        )
        self.lower_steps = lower_steps
        self.lower_lr = lower_lr
        self.start = start
        self.steps = 0
        self.last: BilevelReport | None = None
        self._first_lower = [tensor.detach().clone() for tensor in problem.lower_variables.tensors] if start == "cold" else None

    def step(self, lower_batches: Iterable[Any] | None = None, upper_batch: Any = None) -> dict[str, Tensor]:
        """Takes one outer step.

        Args:
            lower_batches: batches for ``lower``, one per lower step; an iterator is advanced by as many as are needed, a list
                starts again in every call, ``None`` stands for functions that need no data.
            upper_batch: the batch for ``upper``.

        Returns:
            The values of the upper objectives, detached, by name.

        Raises:
            InputError: the batches are used up, or a level does not depend on what it should.
            NonFiniteError: something was infinite or not a number; names the level and objective. Variables, optimizers,
                buffers and the solver's state are as before.
        """
        batches = take(lower_batches, self.lower_steps)
        self.optimizers.clear()
        try:
            report = self._gradients(batches, upper_batch)
        except BaseException:
            self.optimizers.clear()
            self._rollback()
            raise
        self.optimizers.step()
        self._commit()
        torch.clear_autocast_cache()  # a caller's autocast keeps casts of the variables, which have moved
        self.last = report
        self.steps += 1
        return dict(zip(report.objectives, report.upper.unbind(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how solving continues: variables, buffers, optimizers, memory.

        torch's random state and the data's order are not part of it; save them beside it if the functions draw numbers.
        """
        return {
            "upper": [tensor.detach().clone() for tensor in self.problem.upper_variables.tensors],
            "lower": [tensor.detach().clone() for tensor in self.problem.lower_variables.tensors],
            "buffers": self.problem.here().buffers,
            "objectives": self.problem.objectives,
            "optimizers": self.optimizers.state_dict(),
            **self.own_state(),
        }

    def own_state(self) -> dict[str, Any]:
        """What the solver itself remembers, without variables, buffers and optimizers, which others may save."""
        return {
            "first_lower": None if self._first_lower is None else [tensor.clone() for tensor in self._first_lower],
            "steps": self.steps,
            "memory": self._memory(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state is of other variables, other objectives, or another kind of solver.
        """
        read, whose = self._read(state), type(self).__name__
        saved_names, names = read["objectives"], self.problem.objectives
        if saved_names and names and saved_names != names:
            raise InputError(
                f"the state is of the objectives {', '.join(saved_names)}; the objectives here are {', '.join(names)}"
            )
        if len(read["optimizers"]) != len(self.optimizers.all):
            raise InputError(f"the state is of {len(read['optimizers'])} optimizers; there are {len(self.optimizers.all)} here")
        for optimizer, saved in zip(self.optimizers.all, read["optimizers"], strict=True):
            read_optimizer(f"{whose}'s optimizer", saved, optimizer)
        read_model(f"{whose}'s buffers", read["buffers"], self.problem.here().buffers)
        levels = (self.problem.upper_variables, self.problem.lower_variables)
        for level in levels:
            _read_tensors(f"{level.level}-level variables than those of this {whose}", read[level.level], level.tensors)
        self.load_own_state(state)
        with torch.no_grad():
            for level in levels:
                for tensor, saved in zip(level.tensors, read[level.level], strict=True):
                    tensor.copy_(saved)
        self.problem.keep_buffers(read["buffers"])
        if saved_names:
            self.problem.names.fix(saved_names)
        self.optimizers.load_state_dict(list(read["optimizers"]))

    def _read(self, state: dict[str, Any]) -> dict[str, Any]:
        missing = [part for part in self.state_dict() if part not in state] if isinstance(state, Mapping) else ["everything"]
        if missing:
            raise InputError(f"this is no state of a bilevel solver: it lacks {', '.join(missing)}")
        kinds = {
            "upper": Listed(Of(dtype=None)),
            "lower": Listed(Of(dtype=None)),
            "buffers": Anything(),
            "objectives": Listed(Text()),
            "optimizers": Listed(Anything()),
            "first_lower": Anything(),
            "steps": Anything(),
            "memory": Anything(),
        }
        read = read_state(type(self).__name__, {name: state[name] for name in kinds}, kinds)
        self.read_own_state(state)
        return read

    def read_own_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """What :meth:`own_state` gave, as it is loaded; changes nothing. Raises InputError: it is of another kind of solver."""
        whose = type(self).__name__
        kinds = {"first_lower": Maybe(Listed(Of(dtype=None))), "steps": Whole(), "memory": Anything()}
        if not isinstance(state, Mapping):
            raise InputError(f"the state is not that of a {whose}")
        read = read_state(whose, {name: state[name] for name in kinds if name in state}, kinds)
        if not isinstance(read["memory"], Mapping) or read["memory"].keys() != self._memory().keys():
            raise InputError(f"the state is not that of a {whose}")
        if (read["first_lower"] is None) != (self._first_lower is None):
            raise InputError('the state was saved with another choice of start="warm" or "cold"')
        if read["first_lower"] is not None:
            _read_tensors(
                f"first lower-level variables than those of this {whose}",
                read["first_lower"],
                self.problem.lower_variables.tensors,
            )
        return {**read, "memory": self._read_memory(read["memory"])}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`own_state` gave.

        Raises:
            InputError: it is that of another kind of solver.
        """
        read = self.read_own_state(state)
        if read["first_lower"] is not None:
            self._first_lower = [tensor.clone() for tensor in read["first_lower"]]
        self.steps = read["steps"]
        self._remember(read["memory"])

    def _lower_start(self) -> Point:
        """Where this step's lower level starts."""
        here = self.problem.here()
        return here if self._first_lower is None else Point(here.upper, self._first_lower, here.buffers)

    @abstractmethod
    def _gradients(self, batches: list[Any], upper_batch: Any) -> BilevelReport:
        """Fills ``.grad``; nothing else that outlives a failing step may change."""

    def _commit(self) -> None:  # noqa: B027
        """Makes the rest of the step's changes, once the optimizers have stepped."""

    def _rollback(self) -> None:  # noqa: B027
        """Forgets the step's changes."""

    def _memory(self) -> dict[str, Any]:
        """A copy of what the method remembers from step to step."""
        return {}

    def _read_memory(self, memory: Mapping[str, Any]) -> dict[str, Any]:
        """A memory as it is loaded. Raises InputError: it is damaged."""
        return dict(memory)

    def _remember(self, memory: dict[str, Any]) -> None:  # noqa: B027
        """Continues from a memory."""


def _read_tensors(whose: str, saved: Sequence[Tensor], present: Sequence[Tensor]) -> None:
    """Refuses tensors of other shapes or another number of them."""
    if [tensor.shape for tensor in saved] != [tensor.shape for tensor in present]:
        raise InputError(f"the state is of other {whose}: their shapes differ")


def check_upper(values: Sequence[Tensor], names: Sequence[str], step: int) -> Tensor:
    """The upper objectives' values ``[m]``, detached. Raises NonFiniteError: one of them is not finite; names it."""
    stacked = torch.stack([value.detach() for value in values])
    for name, number in zip(names, stacked.tolist(), strict=True):
        if not math.isfinite(number):
            raise NonFiniteError(
                f'the upper level\'s objective "{name}" is not finite in step {step} (it is {number}); '
                f"the step was not taken and nothing has changed",
                tasks=(name,),
                step=step,
                what="loss",
            )
    return stacked
