"""First-order methods: the lower level becomes the constraint f(α, ω) − f*(α) ≤ 0, whose gradient needs no second derivatives.

f*, the value function, is estimated by T gradient steps from a start of ω̃, and its gradient by ∇_α f(α, ω̃^T) (thesis,
eq. 3.14 to 3.16). What remains is how the gradients of the upper objectives and of the constraint are combined, and that
is where FORUM, BOME and BVFIM differ.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.bilevel.base import BilevelReport, BilevelSolver, LowerLevel
from equipoise.bilevel.levels import Parts, Row, added, copies
from equipoise.bilevel.lower import check_lower, check_upper, descend
from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.bilevel.rows import DenseRows, Rows, StreamedRows, check_streamed
from equipoise.bilevel.watch import Watch
from equipoise.errors import InputError

__all__ = ["Combination", "ValueFunction", "ValueFunctionSolver"]


First: TypeAlias = tuple[Tensor, Sequence[Tensor | None]]


class Combination(NamedTuple):
    """How the gradients are combined in a step."""

    weights: NDArray[np.float64]
    multiplier: float


class ValueFunction(LowerLevel, total=False):
    """What every value-function method takes: :class:`~equipoise.bilevel.base.LowerLevel` and two more.

    Attributes:
        constraint_batches: over how many of the step's last lower batches q̃ is taken; 1 if left out.
        memory: ``"rows"``, m + 1 gradients of all variables, as if left out, or ``"streamed"``: their inner products are
            formed block by block of the graph, and nothing of m times the variables' size is held; for one more backward pass.
    """

    constraint_batches: int
    memory: Literal["rows", "streamed"]


class ValueFunctionSolver(BilevelSolver):
    """Steps along −(Σ λ_i ∇F_i + ν ∇q̃) in all variables, q̃(α, ω) = f(α, ω) − f(α, ω̃^T).

    Time of a step: T + 1 gradients of f, one more with respect to α alone, and m gradients of F (one where they are averaged).
    Memory: m + 1 gradients of all variables, whatever T; two of them and a block's with ``memory="streamed"``. With a warm
    start, one and the same batch in the first lower step and in the constraint, and no draws from torch's generators in f, the
    first lower step's gradient is a part of the one at z: one gradient of f less, and one more in memory.

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
        memory: Literal["rows", "streamed"] = "rows",
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
        if memory not in ("rows", "streamed"):
            raise InputError(f'memory must be "rows" or "streamed"; got "{memory}"')
        if memory == "streamed":
            check_streamed(self.levels, self.accumulate)
        self.constraint_batches = constraint_batches
        self.memory = memory
        self._rows: Rows | None = None
        self._buffers: dict[str, Tensor] = {}
        self._draws = False
        self._watch = Watch()

    @abstractmethod
    def _combine(self, gramian: NDArray[np.float64], gap: float) -> Combination:
        """λ and ν from the Gramian of the upper rows and, last, ∇q̃, and from q̃."""

    def _lower_decay(self) -> float:
        """A regulariser of the value function, as decay of the variables in the lower steps."""
        return 0.0

    def _gradients(self, batches: list[Parts], upper_parts: Parts) -> BilevelReport:
        here = self.problem.here()
        leaves = [*here.upper, *here.lower]
        uppers = len(here.upper)
        upper_here = Point(here.upper, here.lower, copies(here.buffers))
        first = self._first(here, leaves, batches)
        # α as it is at ω̃^T, where f counts with its gradient in α.
        asked = [value.detach().requires_grad_() for value in here.upper]
        once = first is not None and self.levels.plain and len(batches[-1]) == 1 and not here.buffers
        solved = descend(
            self.levels,
            # Statistics that a probe collects are not the model's: of this step's evaluations the one at z counts.
            Point(here.upper, self._lower_start().lower, copies(upper_here.buffers)),
            batches,
            self.rule,
            decay=self._lower_decay(),
            careful=self.careful,
            first=None if first is None else (first[0], first[1][uppers:]),
            asked=asked if once else None,
            step=self.steps,
        )
        if self._rows is None or not self._rows.serves(leaves):
            self._rows = (StreamedRows if self.memory == "streamed" else DenseRows)(self.levels, leaves)
        rows = self._rows
        objectives = self.levels.objectives(upper_here, upper_parts[0])
        names = self.problem.objectives
        found = [torch.stack([value.detach() for value in objectives])]
        count = 1 if self.averages else len(names)
        if len(upper_parts) == 1:
            check_upper(self.levels.mean(found), names, self.steps)
        with rows.recording(count):
            rows.objectives(self._starts(objectives), len(upper_parts))
            del objectives
            for part in upper_parts[1:]:
                further = self.levels.objectives(upper_here, part)
                found.append(torch.stack([value.detach() for value in further]))
                rows.objectives(self._starts(further), len(upper_parts))
                del further
            constrained = batches[-self.constraint_batches :]
            at = Point(asked, solved.point.lower, solved.point.buffers)
            present, solution, plus, minus = self._constraint(here, leaves, at, constrained, first, solved.answer)
            rows.constraint(plus, [*minus, *[None] * len(here.lower)])
            if self.steps == 0:
                self._check_dependence(rows, count, uppers, len(leaves))
        values = self.levels.mean(found)
        if len(upper_parts) > 1:
            check_upper(values, names, self.steps)
        self._buffers = here.buffers
        gramian = rows.gramian()
        self._check_gradients(gramian, names)
        gap = present - solution
        weights, multiplier = self._combine(gramian, gap)
        both = np.append(weights, multiplier)
        if not rows.deliver(both):
            kind = str(rows.dtype).removeprefix("torch.")
            raise self.levels.not_finite(
                f"the direction in {kind} with the lower level's multiplier ν = {multiplier:.3g}", ("lower",)
            )
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

    def _starts(self, objectives: list[Tensor]) -> list[Tensor]:
        """What is differentiated."""
        return [torch.stack(objectives).mean()] if self.averages else objectives

    def _first(self, here: Point, leaves: Sequence[Tensor], batches: Sequence[Parts]) -> First | None:
        """f(z) and its gradient, where the first lower step starts from z on the batch that the constraint is taken on.

        The gradient then serves both. Not where f draws random numbers, for the two evaluations have masks of their own.
        """
        same = len(batches[0]) == len(batches[-1]) and all(a is b for a, b in zip(batches[0], batches[-1], strict=True))
        if self._draws or self._first_lower is not None or self.constraint_batches > 1 or not same:
            return None
        buffers = copies(here.buffers)
        state = self.problem.random_state()
        with state.replayed():
            value, gradients = self.levels.lower(Point(here.upper, here.lower, buffers), batches[0], leaves)
            self._draws = not state.equals(self.problem.random_state())
        if self._draws or all(gradient is None for gradient in gradients[len(here.upper) :]):
            return None  # of the latter descend() says what is wrong
        here.buffers = buffers
        return value, gradients

    def _constraint(
        self,
        here: Point,
        leaves: Sequence[Tensor],
        at: Point,
        batches: Sequence[Parts],
        first: First | None,
        known: Tensor | None,
    ) -> tuple[float, float, Row, Row]:
        """f(α, ω) and f(α, ω̃^T), averages over the batches; ∇f(α, ω) and ∇_α f(α, ω̃^T), of which ∇q̃ is the difference."""
        present, answer = [], []
        plus: Row = [None] * len(leaves)
        minus: Row = [None] * len(at.upper)
        share = 1.0 / len(batches)
        for parts in batches:
            # The same dropout masks on both sides: their difference is what counts.
            state = self.problem.random_state()
            value, slopes = self.levels.lower(here, parts, leaves, share) if first is None else first
            if known is None:
                with state.replayed():
                    reached, found = self.levels.lower(at, parts, at.upper, share)
            else:
                reached, found = known.detach(), [None] * len(at.upper)
                if known.requires_grad:
                    found = list(torch.autograd.grad(known, at.upper, allow_unused=True))
            plus, minus = added(plus, slopes), added(minus, found)
            present.append(value)
            answer.append(reached)
        check_lower(present, self.steps, "at the present ω")
        check_lower(answer, self.steps, f"after its {self.lower_steps} steps")
        return (float(torch.stack(present).double().mean()), float(torch.stack(answer).double().mean()), plus, minus)

    def _check_dependence(self, rows: Rows, count: int, uppers: int, variables: int) -> None:
        """Says in the first step which objectives α cannot influence, neither directly nor through ω."""
        names = ("mean",) if self.averages else self.problem.objectives
        through = any(rows.reaches(count, position) for position in range(uppers))
        for row in range(count):
            direct = any(rows.reaches(row, position) for position in range(uppers))
            lower = any(rows.reaches(row, position) for position in range(uppers, variables))
            if not direct and not (through and lower):
                raise InputError(_independent(names[row], lower_depends=through))

    def _check_gradients(self, gramian: NDArray[np.float64], names: Sequence[str]) -> None:
        labels = ["mean objective"] if self.averages else [f'objective "{name}"' for name in names]
        for position, square in enumerate(gramian.diagonal().tolist()):
            if not math.isfinite(square):
                upper = position < len(labels)
                what = f"the upper level's {labels[position]}" if upper else "the lower level"
                tasks = (names[position],) if upper and not self.averages else ("upper" if upper else "lower",)
                raise self.levels.not_finite(f"the gradient of {what}", tasks)

    def _finish(self, leaves: Sequence[Tensor]) -> None:
        """Adds to ``.grad`` what is no combination of the rows."""

    def _commit(self) -> None:
        self.problem.keep_buffers(self._buffers)

    def _look(self, report: BilevelReport) -> None:
        self._watch.look(self, report.multiplier or 0.0, report.constraint or 0.0, report.lower)


def _independent(objective: str, *, lower_depends: bool) -> str:
    why = (
        "it uses neither them nor the lower-level variables"
        if lower_depends
        else "it does not use them, and neither does lower(α, ω, batch), so ω does not answer to them"
    )
    return f'upper(α, ω, batch): the objective "{objective}" does not depend on the upper-level variables: {why}'
