"""What all bilevel solvers have in common: one interface, state, a report, and steps that happen whole or not at all."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Required, TypedDict, Unpack, cast, get_args

import torch
from torch import Tensor

from equipoise.bilevel.levels import Levels, Parts, copies
from equipoise.bilevel.lower import check_upper, descend, take
from equipoise.bilevel.outer_optimizers import OuterOptimizers
from equipoise.bilevel.problem import BilevelProblem, LevelVariables, Point, Variables
from equipoise.bilevel.projections import Projection, may_fail, projected, read_projections
from equipoise.bilevel.rules import Descent, LowerRule, OptimizerRule
from equipoise.distributed import Processes, together
from equipoise.errors import InputError, NonFiniteError
from equipoise.modes import forget_compiled, overwrites
from equipoise.states import Anything, Listed, Maybe, Of, Text, Whole, like, read_model, read_optimizer, read_state

__all__ = ["BilevelReport", "BilevelSolver", "LowerLevel", "Start"]


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
    """What every solver's constructor takes beside arguments of its own: above all, how it solves the lower level.

    Attributes:
        lower_steps: T, gradient steps on the lower level in every outer step.
        lower_lr: their step size η.
        lower_optimizer: in its place, a ``torch.optim.SGD``, ``Adam`` or ``AdamW`` over ω: lower steps are those that it would
            take, with its groups and their options as they are at that time, so a scheduler may change them. It never steps
            itself. MOML with a warm start keeps its averages in it; elsewhere they begin anew in every outer step.
        lower_clip: the norm that the gradients of a lower step are shortened to.
        lower_schedule: t → a factor of the step size in lower step t of an outer step, from 0.
        start: whether the lower level's steps start ``"warm"``, from the present ω, as they do if this is left out, or
            ``"cold"``, from the ω that the solver was made with.
        accumulate: micro-batches per evaluation, whose mean counts: a lower step takes so many of the lower batches, and
            ``upper_batch`` is a sequence of micro-batches. 1 if left out, and ``upper_batch`` is a batch.
        scaler: a ``torch.amp.GradScaler``. A step whose gradients overflow is repeated at half the scale.
        feasible_set: where α is put back to after every outer step: :class:`~equipoise.bilevel.Box`,
            :class:`~equipoise.bilevel.Simplex`, any function tensor → tensor, or a mapping name → one of these. Where
            a function fails, the step has not been taken.
        process_group: of ``torch.distributed``; the default group if left out. Values and gradients of both levels are means
            over its processes.
    """

    lower_steps: Required[int]
    lower_lr: float
    lower_optimizer: torch.optim.Optimizer | None
    lower_clip: float | None
    lower_schedule: Callable[[int], float] | None
    start: Start
    accumulate: int
    scaler: torch.amp.GradScaler | None
    feasible_set: Projection | Mapping[str, Projection] | None
    process_group: Any


class BilevelSolver(ABC):
    """Moves the variables of a bilevel problem, one outer step per call.

    Attributes:
        moves_both: whether the torch optimizers update both levels, or α alone.
        last: the report of the last step.
        steps: how many steps were taken.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, for the outer update.
        lower: see :class:`LowerLevel`.

    Raises:
        InputError: an argument that cannot be used.
    """

    moves_both: ClassVar[bool]

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        **lower: Unpack[LowerLevel],
    ) -> None:
        if not isinstance(problem, BilevelProblem):
            raise InputError(f"problem must be a BilevelProblem; got {type(problem).__name__}")
        unknown = sorted(set(lower) - set(LowerLevel.__annotations__))
        if unknown or "lower_steps" not in lower:
            what = f'has no argument "{unknown[0]}"' if unknown else "needs lower_steps"
            raise TypeError(f"{type(self).__name__} {what}")
        lower_steps, start = lower["lower_steps"], lower.get("start", "warm")
        if isinstance(lower_steps, bool) or not isinstance(lower_steps, int) or lower_steps < 1:
            raise InputError(
                f"lower_steps must be a whole number, at least 1, or the lower level would never be solved; got {lower_steps}"
            )
        accumulate = lower.get("accumulate", 1)
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise InputError(f"accumulate must be a whole number of micro-batches, at least 1; got {accumulate}")
        self.rule = _rule(problem, lower)
        if start not in get_args(Start):
            raise InputError(f'start must be "warm" or "cold"; got "{start}"')
        self.problem = problem
        self.scaler = lower.get("scaler")
        if self.scaler is not None and not self.scaler.is_enabled():
            self.scaler = None
        if self.scaler is not None:  # which has a scale once it has been asked for
            self.scaler.scale(torch.zeros((), device=problem.upper_variables.tensors[0].device))
        both = [problem.upper_variables, problem.lower_variables]
        self.optimizers = OuterOptimizers(
            optimizer, both if self.moves_both else both[:1], None if self.moves_both else problem.lower_variables, self.scaler
        )
        self.projections = read_projections(lower.get("feasible_set"), problem.upper_variables)
        self.processes = Processes(lower.get("process_group"))
        self.levels = Levels(problem, self.processes, self.scaler)
        self.lower_steps = lower_steps
        self.lower_lr = lower.get("lower_lr")
        self.start = start
        self.accumulate = accumulate
        self.steps = 0
        self.last: BilevelReport | None = None
        self._first_lower = [tensor.detach().clone() for tensor in problem.lower_variables.tensors] if start == "cold" else None
        self._shared = False

    @together
    def step(self, lower_batches: Iterable[Any] | None = None, upper_batch: Any = None) -> dict[str, Tensor]:
        """Takes one outer step.

        Args:
            lower_batches: batches for ``lower``, one per lower step (``accumulate`` of them, if there are micro-batches); an
                iterator is advanced by as many as are needed, a list starts again in every call, ``None`` stands for functions
                that need no data.
            upper_batch: the batch for ``upper``; with micro-batches a sequence of them.

        Returns:
            The values of the upper objectives, detached, by name.

        Raises:
            InputError: the batches are used up, or a level does not depend on what it should.
            NonFiniteError: something was infinite or not a number; names the level and objective. Variables, optimizers,
                buffers and the solver's state are as before.
        """
        upper_parts = self._upper_parts(upper_batch)
        batches = self._lower_parts(lower_batches, self.lower_steps)
        self.processes.step = f"step {self.steps}"
        self.levels.step = self.steps
        if self.processes.count > 1 and not self._shared:
            variables = [*self.problem.upper_variables.tensors, *self.problem.lower_variables.tensors]
            self.processes.share([*variables, *self.problem.own_buffers()])
            self._shared = True
        report = self._report(batches, upper_parts)
        self._move()
        self._commit()
        torch.clear_autocast_cache()  # a caller's autocast keeps casts of the variables, which have moved
        self.last = report
        self.steps += 1
        self._look(report)
        return dict(zip(report.objectives, report.upper.unbind(), strict=True))

    @together
    def retrained(
        self, lower_batches: Iterable[Any] | None, upper_batch: Any, *, steps: int, start: Variables | None = None
    ) -> dict[str, Tensor]:
        """What α is worth: the upper objectives at an ω that was trained on the lower level alone, α being held.

        Value-function methods move ω along the upper gradients, too, so their own reports are of an ω that has been fitted to
        the upper level's data; MOML's are of what T steps reach. Variables, buffers, optimizers and torch's random state stay
        as they are.

        Args:
            lower_batches: as for :meth:`step`, one per step here.
            upper_batch: as for :meth:`step`.
            steps: how many lower steps are taken, by the solver's step size or lower optimizer; ``lower_schedule`` begins
                anew after every T of them, as it does from one outer step to the next.
            start: where ω begins: a module, tensor or mapping like that of the problem's lower level, such as a model made
                anew; the present ω if left out, which remembers what it was fitted to for as long as these steps take.

        Returns:
            The values of the upper objectives, detached, by name.

        Raises:
            InputError: too few batches, or a start of other shapes.
            NonFiniteError: the lower level left the finite numbers.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps must be a whole number of lower steps, at least 1; got {steps}")
        here = self.problem.here()
        omega, buffers = here.lower, here.buffers
        if start is not None:
            given = LevelVariables("lower", start)
            if [own.shape for own in given.tensors] != [own.shape for own in omega]:
                raise InputError("start holds other tensors than the problem's lower level: their number or shapes differ")
            omega = [own.to(there) for own, there in zip(given.tensors, omega, strict=True)]
            if given.module is not None:
                fresh = {f"lower.{name}": buffer.clone() for name, buffer in given.module.named_buffers()}
                buffers |= {name: buffer for name, buffer in fresh.items() if name in buffers}
        parts = self._upper_parts(upper_batch)
        self.processes.step, self.levels.step = f"retraining in step {self.steps}", self.steps
        scale = self.levels.scale
        try:
            with self.problem.random_state().replayed():  # loaders draw from it as well
                batches = self._lower_parts(lower_batches, steps)
                state = self.problem.random_state()
                while True:
                    point, memory = Point(here.upper, omega, copies(buffers)), None
                    try:
                        for first in range(0, steps, self.lower_steps):  # a schedule says what T steps do, again and again
                            part = batches[first : first + self.lower_steps]
                            point, _, memory, _ = descend(self.levels, point, part, self.rule, memory=memory, step=self.steps)
                        break
                    except NonFiniteError as error:
                        if not self._backs_off(error):
                            raise
                        state.restore()
                found = [torch.stack([v.detach() for v in self.problem.objectives_at(point, part)]) for part in parts]
                values = check_upper(self.levels.mean(found), self.problem.objectives, self.steps)
        finally:
            if self.levels.scale != scale:
                self.scaler.update(scale)  # type: ignore[union-attr]
        return dict(zip(self.problem.objectives, values.unbind(), strict=True))

    def _lower_parts(self, lower_batches: Iterable[Any] | None, steps: int) -> list[Parts]:
        taken = take(lower_batches, steps * self.accumulate)
        return [tuple(taken[place : place + self.accumulate]) for place in range(0, len(taken), self.accumulate)]

    def _upper_parts(self, upper_batch: Any) -> Parts:
        if self.accumulate == 1:
            return (upper_batch,)
        if upper_batch is None:
            return (None,)
        if not isinstance(upper_batch, Sequence) or isinstance(upper_batch, str) or not upper_batch:
            raise InputError(
                f"with accumulate={self.accumulate}, upper_batch must be a sequence of micro-batches, at least one; got "
                f"{type(upper_batch).__name__}"
            )
        return tuple(upper_batch)

    def _report(self, batches: list[Parts], upper_parts: Parts) -> BilevelReport:
        """Fills ``.grad``, trying again what a compiled graph or a loss scale refused."""
        state, anew = self.problem.random_state(), False
        while True:
            self.optimizers.clear()
            try:
                return self._gradients(batches, upper_parts)
            except BaseException as error:
                self.optimizers.clear()
                self._rollback()
                if isinstance(error, RuntimeError) and overwrites(error) and not anew:
                    forget_compiled()
                    anew = True
                elif not self._backs_off(error):
                    raise
                state.restore()

    def _move(self) -> None:
        """Lets the optimizers step, and puts α back."""
        bring_back = self.optimizers.kept() if may_fail(self.projections) else None
        self.optimizers.step()
        upper = self.problem.upper_variables
        try:
            for name, tensor, project in zip(upper.names, upper.tensors, self.projections, strict=True):
                if project is not None:
                    with torch.no_grad():
                        tensor.copy_(projected(project, name, tensor))
        except BaseException:
            if bring_back is not None:
                bring_back()
            self.optimizers.clear()
            self._rollback()
            raise

    def _backs_off(self, error: BaseException) -> bool:
        """Lowers the scaler's scale if that is what a failure may be due to."""
        overflow = isinstance(error, NonFiniteError) and error.what == "gradient"
        if self.scaler is None or not overflow or self.levels.scale <= 1.0:
            return False
        self.scaler.update(self.levels.scale * self.scaler.get_backoff_factor())
        return True

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
            **self._further_state(),
        }

    def _further_state(self) -> dict[str, Any]:
        """Of what the caller gave beside the optimizers; empty in most runs."""
        state: dict[str, Any] = {}
        if isinstance(self.rule, OptimizerRule):
            state["lower_optimizer"] = copy.deepcopy(self.rule.optimizer.state_dict())
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        return state

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
            **dict.fromkeys(self._further_state(), Anything()),
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
        further = self._further_state()
        for name in further:
            if name not in state:
                raise InputError(f"the state of a {whose} lacks that of its {name.replace('_', ' ')}")
        if isinstance(self.rule, OptimizerRule):
            read_optimizer(f"{whose}'s lower optimizer", state["lower_optimizer"], self.rule.optimizer)
        if self.scaler is not None:
            own = {name: like(value) for name, value in further["scaler"].items()}
            read_state(f"{whose}'s scaler", state["scaler"], own)
        return {**read, **{name: state[name] for name in further}, "memory": self._read_memory(read["memory"])}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`own_state` gave.

        Raises:
            InputError: it is that of another kind of solver.
        """
        read = self.read_own_state(state)
        if read["first_lower"] is not None:
            self._first_lower = [tensor.clone() for tensor in read["first_lower"]]
        self.steps = read["steps"]
        if isinstance(self.rule, OptimizerRule):
            self.rule.optimizer.load_state_dict(copy.deepcopy(read["lower_optimizer"]))
        if self.scaler is not None:
            self.scaler.load_state_dict(read["scaler"])
        self._remember(read["memory"])

    def _lower_start(self) -> Point:
        """Where this step's lower level starts."""
        here = self.problem.here()
        return here if self._first_lower is None else Point(here.upper, self._first_lower, here.buffers)

    @abstractmethod
    def _gradients(self, batches: list[Parts], upper_parts: Parts) -> BilevelReport:
        """Fills ``.grad``; nothing else that outlives a failing step may change."""

    def _commit(self) -> None:  # noqa: B027
        """Makes the rest of the step's changes, once the optimizers have stepped."""

    def _look(self, report: BilevelReport) -> None:  # noqa: B027
        """Warns of what a run of reports tells."""

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


def _rule(problem: BilevelProblem, lower: LowerLevel) -> LowerRule:
    """What a lower step does."""
    lr, optimizer = lower.get("lower_lr"), lower.get("lower_optimizer")
    clip, schedule = lower.get("lower_clip"), lower.get("lower_schedule")
    if (lr is None) == (optimizer is None):
        raise InputError(
            f"give lower_lr, the step size of gradient descent on the lower level, or lower_optimizer; got "
            f"{'neither' if lr is None else 'both'}"
        )
    if optimizer is not None:
        return OptimizerRule(optimizer, problem.lower_variables, clip, schedule)
    if not 0 < cast(float, lr) < float("inf"):
        raise InputError(f"lower_lr must be positive and finite; got {lr}")
    return Descent(cast(float, lr), clip, schedule)
