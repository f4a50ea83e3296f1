"""First-order methods: the lower level becomes the constraint f(α, ω) − f*(α) ≤ 0, whose gradient needs no second derivatives.

f*, the value function, is estimated by T gradient steps from a start of ω̃, and its gradient by ∇_α f(α, ω̃^T) (thesis,
eq. 3.14 to 3.16). What remains is how the gradients of the upper objectives and of the constraint are combined, and that
is where FORUM, BOME and BVFIM differ.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.bilevel.base import BilevelReport, BilevelSolver, LowerLevel, check_upper
from equipoise.bilevel.lower import check_lower, descend
from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.engine.gradients import TaskGradients
from equipoise.errors import InputError, NonFiniteError

__all__ = ["Combination", "ValueFunction", "ValueFunctionSolver"]


First: TypeAlias = tuple[Tensor, Sequence[Tensor | None]]


class Combination(NamedTuple):
    """How the gradients are combined in a step."""

    weights: NDArray[np.float64]
    multiplier: float


class ValueFunction(LowerLevel, total=False):
    """What every value-function method takes: :class:`~equipoise.bilevel.base.LowerLevel` and one more.

    Attributes:
        constraint_batches: over how many of the step's last lower batches q̃ is taken; 1 if left out.
    """

    constraint_batches: int


class ValueFunctionSolver(BilevelSolver):
    """Steps along −(Σ λ_i ∇F_i + ν ∇q̃) in all variables, q̃(α, ω) = f(α, ω) − f(α, ω̃^T).

    Time of a step: T + 1 gradients of f, one more with respect to α alone, and m gradients of F (one where they are averaged).
    Memory: m + 1 gradients of all variables, whatever T. With a warm start, one and the same batch in the first lower step and
    in the constraint, and no draws from torch's generators in f, the first lower step's gradient is a part of the one at z: one
    gradient of f less, and one more in memory.

    Attributes:
        careful: see :func:`~equipoise.bilevel.lower.descend`; for problems whose lower batches are one and the same.
    """

    moves_both = True
    careful = False
    averages: ClassVar[bool] = False
    """Whether the method works on the mean of the upper objectives."""

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        constraint_batches: int = 1,
        **lower: Unpack[LowerLevel],
    ) -> None:
        super().__init__(problem, optimizer, **lower)
        lower_steps = self.lower_steps
        whole = isinstance(constraint_batches, int) and not isinstance(constraint_batches, bool)
        if not whole or not 1 <= constraint_batches <= lower_steps:
            raise InputError(
                f"constraint_batches must be a whole number between 1 and lower_steps={lower_steps}, as they are the last of "
                f"the step's lower batches; got {constraint_batches}"
            )
        self.constraint_batches = constraint_batches
        self._rows: TaskGradients | None = None
        self._buffers: dict[str, Tensor] = {}
        self._draws = False

    @abstractmethod
    def _combine(self, gramian: NDArray[np.float64], gap: float) -> Combination:
        """λ and ν from the Gramian of the upper rows and, last, ∇q̃, and from q̃."""

    def _lower_decay(self) -> float:
        """A regulariser of the value function, as decay of the variables in the lower steps."""
        return 0.0

    def _gradients(self, batches: list[Any], upper_batch: Any) -> BilevelReport:
        here = self.problem.here()
        leaves = [*here.upper, *here.lower]
        upper_here = Point(here.upper, here.lower, _copies(here.buffers))
        first = self._first(here, leaves, batches)
        solved = descend(
            self.problem,
            # Statistics that a probe collects are not the model's: of this step's evaluations the one at z counts.
            Point(here.upper, self._lower_start().lower, _copies(upper_here.buffers)),
            batches,
            self.lower_lr,
            decay=self._lower_decay(),
            careful=self.careful,
            first=None if first is None else (first[0], first[1][len(here.upper) :]),
            step=self.steps,
        )
        objectives = self.problem.objectives_at(upper_here, upper_batch)
        names = self.problem.objectives
        values = check_upper(objectives, names, self.steps)
        for name, objective in zip(names, objectives, strict=True):
            if not objective.requires_grad:
                raise InputError(
                    f'upper(α, ω, batch): the objective "{name}" depends on none of the variables; it was detached, '
                    f"or computed under torch.no_grad()"
                )
        starts = [torch.stack(objectives).mean()] if self.averages else objectives
        count = len(starts)
        if self._rows is None or not self._rows.serves(leaves):
            self._rows = TaskGradients(leaves)
        rows = self._rows
        rows.begin(count + 1)
        with rows.recording():
            for row, objective in enumerate(starts):
                rows.differentiate(row, objective, retain_graph=row < count - 1, alone=True)
            del objectives, starts
            at, solution = self._constraint(here, solved, batches[-self.constraint_batches :], rows, count, first)
            if self.steps == 0:
                self._check_dependence(rows, count)
        self._buffers = here.buffers
        gramian = rows.gramian().cpu().numpy()
        self._check_gradients(gramian, names)
        gap = at - solution
        weights, multiplier = self._combine(gramian, gap)
        both = np.append(weights, multiplier)
        direction = rows.combine(torch.from_numpy(both))
        if not bool(torch.isfinite(direction).all()):
            raise NonFiniteError(
                f"the direction of step {self.steps} is not finite in {str(direction.dtype).removeprefix('torch.')}, with the "
                f"lower level's multiplier ν = {multiplier:.3g}; the step was not taken and nothing has changed",
                tasks=("lower",),
                step=self.steps,
                what="gradient",
            )
        rows.deliver(direction)
        self._finish(leaves)
        shown = np.full(len(names), weights.sum() / len(names)) if self.averages else weights
        return BilevelReport(
            step=self.steps,
            objectives=names,
            upper=values,
            lower=solution,
            weights=torch.from_numpy(np.array(shown)),
            multiplier=float(multiplier),
            constraint=gap,
            stationarity=max(0.0, float(both @ gramian @ both)),
        )

    def _first(self, here: Point, leaves: Sequence[Tensor], batches: Sequence[Any]) -> First | None:
        """f(z) and its gradient, where the first lower step starts from z on the batch that the constraint is taken on.

        The gradient then serves both. Not where f draws random numbers, for the two evaluations have masks of their own.
        """
        if self._draws or self._first_lower is not None or self.constraint_batches > 1 or batches[0] is not batches[-1]:
            return None
        buffers = _copies(here.buffers)
        state = self.problem.random_state()
        with state.replayed():
            value = self.problem.lower_at(Point(here.upper, here.lower, buffers), batches[0])
            self._draws = not state.equals(self.problem.random_state())
        if self._draws or not value.requires_grad:
            return None
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        if all(gradient is None for gradient in gradients[len(here.upper) :]):
            return None  # descend() says what is wrong
        here.buffers = buffers
        return value.detach(), gradients

    def _constraint(
        self, here: Point, solved: Point, batches: Sequence[Any], rows: TaskGradients, row: int, first: First | None
    ) -> tuple[float, float]:
        """Records ∇q̃ and returns f(α, ω) and f(α, ω̃^T), averages over the batches."""
        present, answer = [], []
        held = Point([value.detach().requires_grad_() for value in here.upper], solved.lower, solved.buffers)
        sums: list[Tensor | None] = [None] * len(held.upper)
        for batch in batches:
            # The same dropout masks on both sides: their difference is what counts.
            state = self.problem.random_state()
            value = self.problem.lower_at(here, batch) if first is None else first[0]
            seed = torch.full_like(value, 1.0 / len(batches))
            if first is None:
                rows.differentiate(row, value, seed, retain_graph=False, alone=True)
            else:
                rows.add(row, first[1])
            with state.replayed():
                reached = self.problem.lower_at(held, batch)
            if reached.requires_grad:
                found = torch.autograd.grad(reached, held.upper, seed, allow_unused=True)
                sums = [own if new is None else new if own is None else own + new for own, new in zip(sums, found, strict=True)]
            present.append(value.detach())
            answer.append(reached.detach())
        rows.subtract(row, [*sums, *[None] * len(here.lower)])
        check_lower(present, self.steps, "at the present ω")
        check_lower(answer, self.steps, f"after its {self.lower_steps} steps")
        return (float(torch.stack(present).double().mean()), float(torch.stack(answer).double().mean()))

    def _check_dependence(self, rows: TaskGradients, count: int) -> None:
        """Says in the first step which objectives α cannot influence, neither directly nor through ω."""
        uppers = len(self.problem.upper_variables)
        names = ("mean",) if self.averages else self.problem.objectives
        through = any(rows.reaches(count, position) for position in range(uppers))
        for row in range(count):
            direct = any(rows.reaches(row, position) for position in range(uppers))
            lower = any(rows.reaches(row, position) for position in range(uppers, len(rows.parameters)))
            if not direct and not (through and lower):
                raise InputError(_independent(names[row], lower_depends=through))

    def _check_gradients(self, gramian: NDArray[np.float64], names: Sequence[str]) -> None:
        labels = ["mean objective"] if self.averages else [f'objective "{name}"' for name in names]
        for position, square in enumerate(gramian.diagonal().tolist()):
            if not math.isfinite(square):
                upper = position < len(labels)
                what = f"the upper level's {labels[position]}" if upper else "the lower level"
                raise NonFiniteError(
                    f"the gradient of {what} is not finite in step {self.steps}; "
                    f"the step was not taken and nothing has changed",
                    tasks=(names[position],) if upper and not self.averages else ("upper" if upper else "lower",),
                    step=self.steps,
                    what="gradient",
                )

    def _finish(self, leaves: Sequence[Tensor]) -> None:
        """Adds to ``.grad`` what is no combination of the rows."""

    def _commit(self) -> None:
        self.problem.keep_buffers(self._buffers)


def _copies(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in buffers.items()}


def _independent(objective: str, *, lower_depends: bool) -> str:
    why = (
        "it uses neither them nor the lower-level variables"
        if lower_depends
        else "it does not use them, and neither does lower(α, ω, batch), so ω does not answer to them"
    )
    return f'upper(α, ω, batch): the objective "{objective}" does not depend on the upper-level variables: {why}'
