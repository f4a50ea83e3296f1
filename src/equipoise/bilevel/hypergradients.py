"""Hypergradients of the upper objectives: by differentiating through lower steps, or by the implicit function theorem.

:class:`Unrolled` differentiates through the T lower steps, or the last of them. Its two kinds of memory give the same
numbers: ``"plain"`` keeps the graphs of all T steps, so memory grows with T times the activations; ``"checkpointed"`` keeps ω
at about √T of the steps, recomputes the others, and carries the m adjoint vectors v_i = ∂F_i/∂ω_t back one step at a time:

    v_i ← v_i − η ∇²_ωω f v_i,    ∇_α F_i ← ∇_α F_i − η ∇²_αω f v_i,

for which one graph of ∇_ω f at a time is enough. Several micro-batches or processes, a gradient scaler, and layers without a
second derivative go that way, too.

:class:`Implicit` solves (∇²_ωω f + damping) x_i = ∂F_i/∂ω at ω_T and takes ∇_α F_i − ∇²_αω f x_i, which needs no memory of
how ω came there: exact where ω_T is the lower level's minimum and the system is solved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from equipoise.bilevel.levels import (
    Curvature,
    Levels,
    Parts,
    Products,
    Row,
    Weigh,
    added,
    check_reached,
    copies,
    grad_rows,
    lower_gradients,
)
from equipoise.bilevel.linear_systems import conjugate_gradients, neumann
from equipoise.bilevel.lower import check_answer, check_lower, check_upper, descend
from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.bilevel.rules import Averages, Descent, LowerRule, Vectors
from equipoise.engine.reals import flat
from equipoise.errors import InputError, warn_once
from equipoise.modes import differentiable_twice, lacks_second_derivative
from equipoise.randomness import RandomState

__all__ = ["Hypergradients", "Implicit", "Memory", "Unrolled", "found_by", "hypergradients"]

Memory = Literal["plain", "checkpointed"]


@dataclass(frozen=True)
class Unrolled:
    """Differentiate through the lower steps (thesis, eq. 3.6).

    Args:
        last: through how many of them, from the last one back; all of them if left out. The rest is taken without a graph, and
            the hypergradient is that of a start which does not answer to α.
        products: how second derivatives are taken: ``"exact"``, by ``"differences"`` of first ones, or ``"auto"``: exactly
            unless a layer has none.

    Raises:
        InputError: an argument that cannot be used.
    """

    last: int | None = None
    products: Products = "auto"

    def __post_init__(self) -> None:
        if self.last is not None and (isinstance(self.last, bool) or not isinstance(self.last, int) or self.last < 1):
            raise InputError(f"last must be a whole number of lower steps, at least 1; got {self.last}")
        _check_products(self.products)


@dataclass(frozen=True)
class Implicit:
    """By the implicit function theorem at ω_T: one linear system per objective, whatever T and the lower optimizer.

    Weight decay of the lower optimizer counts as a part of f; AdamW's, which belongs to no function, is refused.

    Args:
        solver: ``"conjugate-gradient"``, for a positive definite ∇²_ωω f, or ``"neumann"``: η Σ_j (I − η ∇²_ωω f)^j, which is
            what unrolling so many more steps at ω_T would give.
        iterations: products with ∇²_ωω f at most.
        lr: η of the Neumann series, below 2 over the largest curvature; the lower level's step size if left out.
        damping: added to the diagonal of ∇²_ωω f; for lower levels that are flat in some directions.
        tolerance: the residual, relative to the right-hand side, at which conjugate gradients stop.
        products: see :class:`Unrolled`.

    Raises:
        InputError: an argument that cannot be used.
    """

    solver: Literal["conjugate-gradient", "neumann"] = "conjugate-gradient"
    iterations: int = 20
    lr: float | None = None
    damping: float = 0.0
    tolerance: float = 1e-10
    products: Products = "auto"

    def __post_init__(self) -> None:
        if self.solver not in ("conjugate-gradient", "neumann"):
            raise InputError(f'solver must be "conjugate-gradient" or "neumann"; got "{self.solver}"')
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise InputError(f"iterations must be a whole number, at least 1; got {self.iterations}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise InputError(f"lr must be positive and finite; got {self.lr}")
        for name, value in (("damping", self.damping), ("tolerance", self.tolerance)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        _check_products(self.products)


Method = Unrolled | Implicit


def _check_products(products: str) -> None:
    if products not in get_args(Products):
        raise InputError(f'products must be "auto", "exact" or "differences"; got "{products}"')


class Hypergradients(NamedTuple):
    """What was found.

    Attributes:
        rows: ∇_α F_i, flat, ``[m, n]``; two real entries for a complex one. One row, their weighted sum, where weights that
            follow from the values alone were asked for.
        values: F ``[m]`` at ω_T.
        solution: ω_T and the buffers there.
        lower: f(α, ω_{T−1}) on the last lower batch.
        reached: for each variable of α, whether any objective depends on it; ``None`` where all of them are.
        weights: those of the single row.
        memory: the lower optimizer's, after T steps.
    """

    rows: Tensor
    values: Tensor
    solution: Point
    lower: float
    reached: tuple[bool, ...] | None = None
    weights: Tensor | None = None
    memory: Averages | None = None


def hypergradients(
    problem: BilevelProblem,
    start: Point,
    batches: Sequence[Any],
    upper_batch: Any,
    lr: float,
    *,
    method: Method | None = None,
    memory: Memory = "plain",
    batched: bool = False,
    step: int = 0,
) -> Hypergradients:
    """∇_α F_i(ω_T(α), α) for ω_{t+1} = ω_t − η ∇_ω f(ω_t, α), i = 1 … m (thesis, eq. 3.6 and Algorithm 1).

    Args:
        problem: the problem.
        start: α and ω_0, which does not depend on α; stays as it is, but for the buffers.
        batches: T of them, for the lower level.
        upper_batch: for the upper level.
        lr: η.
        method: :class:`Unrolled`, which is meant if left out, or :class:`Implicit`.
        memory: of unrolling, see the top of this file.
        batched: differentiate all m objectives at once with ``vmap``, which pays on GPUs with small models. Graphs that cannot
            be differentiated so (sparse embeddings, say) are row by row.
        step: index of the outer step, for error messages.

    Raises:
        InputError: a level does not depend on what it should, or ``products="exact"`` of a layer without second derivatives.
        NonFiniteError: a value is not finite; names level and objective.

    Example:
        ω* = α, so ∇_α ½(ω* − 1)² = α − 1.

        >>> alpha, omega = torch.tensor(3.0), torch.tensor(3.0)
        >>> problem = BilevelProblem(lambda a, w, _: (w - a) ** 2, lambda a, w, _: 0.5 * (w - 1) ** 2, (alpha, omega))
        >>> hypergradients(problem, problem.here(), [None], None, 0.1, method=Implicit()).rows
        tensor([[2.]])
    """
    parts = [(batch,) for batch in batches]
    return found_by(
        method or Unrolled(),
        Levels(problem),
        start,
        parts,
        (upper_batch,),
        Descent(lr),
        memory=memory,
        batched=batched,
        step=step,
    )


def found_by(
    method: Method,
    levels: Levels,
    start: Point,
    batches: Sequence[Parts],
    upper_parts: Parts,
    rule: LowerRule,
    *,
    averages: Averages | None = None,
    memory: Memory = "plain",
    batched: bool = False,
    weigh: Weigh | None = None,
    undo: Callable[[], object] = lambda: None,
    step: int = 0,
) -> Hypergradients:
    """As :func:`hypergradients`, for micro-batches, processes and optimizers of all kinds.

    Args:
        method: how.
        levels: the functions.
        start: α and ω_0.
        batches: T of them.
        upper_parts: the upper level's micro-batches.
        rule: a lower step.
        averages: what the rule remembers; fresh if left out.
        memory: of unrolling.
        batched: all objectives at once.
        weigh: gives weights from the objectives' values alone; then one row is found, their weighted sum.
        undo: makes as if ``weigh`` had not been called.
        step: index of the outer step.
    """
    leaves = Point([value.detach().requires_grad_() for value in start.upper], start.lower, start.buffers)
    averages = rule.fresh(len(start.lower)) if averages is None else averages
    find = _Finding(levels, leaves, batches, upper_parts, rule, averages, memory, batched, weigh, step)
    problem, auto = levels.problem, method.products == "auto"
    if method.products == "differences" or (auto and problem.by_differences):
        return find(method, exact=False)
    state, buffers = problem.random_state(), copies(start.buffers)
    try:
        return find(method, exact=True)
    except RuntimeError as error:
        if not lacks_second_derivative(error):
            raise
        said = str(error).partition("\n")[0]
        if not auto:
            raise InputError(
                f'the lower level has no second derivative ({said}); let products="auto" take it by differences of first ones, '
                f"or take a method that needs none, such as FORUM"
            ) from error
    undo()
    state.restore()
    start.buffers.update(buffers)
    warn_once(
        problem,
        "second derivatives",
        f"the lower level has no second derivative ({said}), so its products with vectors are central differences of first "
        f'derivatives; products="differences" says so beforehand',
    )
    problem.by_differences = True
    return find(method, exact=False)


@dataclass
class _Finding:
    """One search for hypergradients; see :func:`found_by`."""

    levels: Levels
    start: Point
    batches: Sequence[Parts]
    upper_parts: Parts
    rule: LowerRule
    averages: Averages
    memory: Memory
    batched: bool
    weigh: Weigh | None
    step: int

    def __post_init__(self) -> None:
        self.problem = self.levels.problem
        self.count = len(self.start.upper)

    def __call__(self, method: Method, *, exact: bool) -> Hypergradients:
        if isinstance(method, Implicit):
            return self._implicit(method, exact)
        start, averages, values = self.start, self.averages, []
        batches = list(self.batches)
        ahead = 0 if method.last is None else max(0, len(batches) - method.last)
        if ahead:
            solved = descend(self.levels, start, batches[:ahead], self.rule, memory=averages, step=self.step)
            start, averages = Point(start.upper, solved.point.lower, start.buffers), solved.memory
            values = solved.values
        single = len(self.upper_parts) == 1 and all(len(parts) == 1 for parts in batches)
        if exact and single and self.memory == "plain" and self.levels.plain:
            return self._plain(start, batches[ahead:], averages, values, ahead)
        with differentiable_twice() if exact else nullcontext():
            return self._adjoint(start, batches[ahead:], averages, values, ahead, exact)

    def _plain(
        self, start: Point, batches: Sequence[Parts], averages: Averages, values: list[Tensor], ahead: int
    ) -> Hypergradients:
        omega = [value.detach().requires_grad_() for value in start.lower]
        with differentiable_twice():
            for position, (batch,) in enumerate(batches):
                value = self.problem.lower_at(Point(start.upper, omega, start.buffers), batch)
                gradients = lower_gradients(self.problem, value, omega, create_graph=True)
                omega, averages = self.rule.step(omega, gradients, averages, ahead + position)
                values.append(value.detach())
        self._check_lower(values, omega)
        upper_values, found, weights = self._upper(Point(start.upper, omega, start.buffers), start.upper)
        _check_dependence(found, self.problem.objectives, weights)
        solution = Point(start.upper, [value.detach() for value in omega], start.buffers)
        return self._result(found, upper_values, solution, values, weights, averages)

    def _adjoint(
        self, start: Point, batches: Sequence[Parts], averages: Averages, values: list[Tensor], ahead: int, exact: bool
    ) -> Hypergradients:
        total = len(batches)
        length = 1 if self.memory == "plain" else max(1, round(total**0.5))
        omega = [value.detach() for value in start.lower]
        kept: list[tuple[list[Tensor], Averages, dict[str, Tensor], RandomState]] = []
        for position, parts in enumerate(batches):
            if position % length == 0:
                kept.append((omega, averages, copies(start.buffers), self.problem.random_state()))
            omega, averages, _ = self._one(start.buffers, omega, averages, parts, ahead + position, values)
        self._check_lower(values, omega)

        # The upper level: ∇_α F_i directly, and the adjoints v_i.
        reached = [value.requires_grad_() for value in omega]
        inputs = [*start.upper, *reached]
        upper_values, found, weights = self._upper(Point(start.upper, reached, start.buffers), inputs)
        direct = [row[: self.count] for row in found]
        adjoints = [_filled(row[self.count :], reached) for row in found]
        slots: list[Vectors] = [[[torch.zeros_like(value) for value in reached] for _ in averages.slots] for _ in found]
        solution = Point(start.upper, [value.detach() for value in reached], start.buffers)
        depends = [any(entry is not None for entry in row) for row in direct]
        curved = not (isinstance(self.rule, Descent) and self.rule.linear)

        # Recomputing a segment must leave no trace: it has the buffers and the random state of its first time.
        for segment in reversed(range(len(kept))):
            first, memory, buffers, state = kept.pop()
            own = batches[segment * length : (segment + 1) * length]
            with state.replayed():
                points = [(first, memory, copies(buffers), self.problem.random_state())]
                for offset, parts in enumerate(own[:-1]):
                    index = ahead + segment * length + offset
                    moved, memory, _ = self._one(buffers, points[-1][0], memory, parts, index, [])
                    points.append((moved, memory, copies(buffers), self.problem.random_state()))
            for offset, parts in reversed(list(enumerate(own))):
                index = ahead + segment * length + offset
                at, memory, buffers_at, state_at = points.pop()
                leaves = [value.detach().requires_grad_() for value in at]
                with state_at.replayed():
                    curvature = Curvature(self.levels, Point(start.upper, leaves, buffers_at), parts, exact=exact)
                    slopes: Row = []
                    if curved:
                        slopes = self._one(copies(buffers_at), at, memory, parts, index, [])[2]
                adjoints, slots, seeds, factor = self.rule.pull(at, slopes, memory, index, adjoints, slots)
                for row, products in enumerate(curvature.products(seeds, upper=True, batched=self.batched)):
                    # In place: the adjoints are this function's own.
                    for position, product in enumerate(products):
                        if product is None:
                            continue
                        if position >= self.count:
                            adjoints[row][position - self.count].add_(product, alpha=factor)
                        else:
                            depends[row] = True
                            change = product * factor
                            before = direct[row][position]
                            direct[row][position] = change if before is None else before + change
        checked: list[Row] = [row if depends[i] else [None] * self.count for i, row in enumerate(direct)]
        _check_dependence(checked, self.problem.objectives, weights)
        return self._result(direct, upper_values, solution, values, weights, averages)

    def _implicit(self, method: Implicit, exact: bool) -> Hypergradients:
        diagonal = [method.damping + decay for decay in self.rule.decays(len(self.start.lower))]
        solved = descend(self.levels, self.start, self.batches, self.rule, memory=self.averages, step=self.step)
        self._check_lower(solved.values, solved.point.lower)
        upper = self.start.upper
        omega = [value.detach().requires_grad_() for value in solved.point.lower]
        point = Point(upper, omega, self.start.buffers)
        values, found, weights = self._upper(point, [*upper, *omega])
        direct = [row[: self.count] for row in found]
        right = [_filled(row[self.count :], omega) for row in found]
        with differentiable_twice() if exact else nullcontext():
            curvature = Curvature(self.levels, point, self.batches[-1], exact=exact)
            if method.solver == "neumann":
                rate = method.lr
                if rate is None:
                    if not isinstance(self.rule, Descent):
                        raise InputError('Implicit("neumann") needs a step size lr= where the lower level has an optimizer')
                    rate = self.rule.lr
                solution = neumann(curvature, right, diagonal, rate, method.iterations, self.batched)
            else:
                solution = conjugate_gradients(curvature, right, diagonal, method.iterations, method.tolerance)
            mixed = curvature.products(solution, upper=True, lower=False, batched=self.batched)
        for row, products in zip(direct, mixed, strict=True):
            for position, product in enumerate(products):
                if product is not None:
                    before = row[position]
                    row[position] = -product if before is None else before - product
        _check_dependence(direct, self.problem.objectives, weights)
        end = Point(upper, [value.detach() for value in omega], self.start.buffers)
        return self._result(direct, values, end, solved.values, weights, solved.memory)

    def _one(
        self,
        buffers: dict[str, Tensor],
        omega: list[Tensor],
        averages: Averages,
        parts: Parts,
        index: int,
        values: list[Tensor],
    ) -> tuple[list[Tensor], Averages, Row]:
        """One step without a graph, and the gradient that it followed."""
        leaves = [value.detach().requires_grad_() for value in omega]
        value, found = self.levels.lower(Point(self.start.upper, leaves, buffers), parts, leaves)
        gradients = check_reached(self.problem, found)
        values.append(value)
        with torch.no_grad():
            moved, averages = self.rule.step(leaves, gradients, averages, index)
        return [value.detach() for value in moved], averages, gradients

    def _upper(self, point: Point, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Row], Tensor | None]:
        """F ``[m]``, its rows of gradients or their weighted sum, and the weights of that."""
        levels, rows, values = self.levels, list[Row](), []
        weights: Tensor | None = None
        factor = levels.scale / len(self.upper_parts)
        for part in self.upper_parts:
            # On copies of the buffers: statistics are those of the lower level's batches.
            objectives = levels.objectives(Point(point.upper, point.lower, copies(point.buffers)), part)
            names = self.problem.objectives
            values.append(torch.stack([value.detach() for value in objectives]))
            seeds = None
            if len(self.upper_parts) == 1:
                joint = check_upper(levels.mean(values), names, self.step)
                weights = None if self.weigh is None else self.weigh(joint)
                if weights is not None:
                    pairs = zip(objectives, weights.tolist(), strict=True)
                    seeds = [[torch.full_like(o, w * factor, requires_grad=False) for o, w in pairs]]
            found = grad_rows(objectives, inputs, seeds, self.batched, factor=factor)
            rows = [added(own, new) for own, new in zip(rows, found, strict=True)] if rows else found
        joint = check_upper(levels.mean(values), self.problem.objectives, self.step)
        return joint, [levels.joint(row, inputs) for row in rows], weights

    def _check_lower(self, values: Sequence[Tensor], omega: Sequence[Tensor]) -> None:
        check_lower(values, self.step)
        check_answer(omega, self.problem.lower_variables.names, len(self.batches), self.step)

    def _result(
        self,
        rows: Sequence[Row],
        upper: Tensor,
        solution: Point,
        values: Sequence[Tensor],
        weights: Tensor | None,
        averages: Averages,
    ) -> Hypergradients:
        reached = tuple(any(entry is not None for entry in column) for column in zip(*rows, strict=True))
        filled = torch.stack([torch.cat([flat(entry) for entry in _filled(row, self.start.upper)]) for row in rows])
        kept = Averages([[None if e is None else e.detach() for e in slot] for slot in averages.slots], averages.counts)
        return Hypergradients(filled, upper, solution, float(values[-1]), reached, weights, kept)


def _check_dependence(found: Sequence[Row], names: Sequence[str], weights: Tensor | None) -> None:
    for name, row in zip(names if weights is None else [", ".join(names)], found, strict=True):
        if all(entry is None for entry in row):
            raise InputError(
                f'upper(α, ω, batch): the objective "{name}" does not depend on the upper-level variables, neither directly '
                f"nor through the lower level's answer ω"
            )


def _filled(row: Row, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [
        torch.zeros_like(value) if entry is None else entry.detach().clone() for entry, value in zip(row, inputs, strict=True)
    ]
