"""Hypergradients of the upper objectives, by differentiating through T gradient steps on the lower level.

Both ways give the same numbers. ``"plain"`` keeps the graphs of all T steps, so memory grows with T times the activations.
``"checkpointed"`` keeps ω at about √T of the steps, recomputes the others, and carries the m adjoint vectors
v_i = ∂F_i/∂ω_t back one step at a time:

    v_i ← v_i − η ∇²_ωω f v_i,    ∇_α F_i ← ∇_α F_i − η ∇²_αω f v_i,

for which one graph of ∇_ω f at a time is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from equipoise.bilevel.base import check_upper
from equipoise.bilevel.lower import check_answer, check_lower, lower_gradients
from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.engine.batched import gradients_at_once
from equipoise.engine.graph import origins
from equipoise.engine.reals import flat
from equipoise.errors import InputError
from equipoise.randomness import RandomState

__all__ = ["Hypergradients", "Memory", "hypergradients"]

Memory = Literal["plain", "checkpointed"]


class Hypergradients(NamedTuple):
    """What unrolling gives.

    Attributes:
        rows: ∇_α F_i, flat, ``[m, n]``; two real entries for a complex one.
        values: F ``[m]`` at ω_T.
        solution: ω_T and the buffers there.
        lower: f(α, ω_{T−1}) on the last lower batch.
        reached: for each variable of α, whether any objective depends on it; ``None`` where all of them are.
    """

    rows: Tensor
    values: Tensor
    solution: Point
    lower: float
    reached: tuple[bool, ...] | None = None


def hypergradients(
    problem: BilevelProblem,
    start: Point,
    batches: Sequence[Any],
    upper_batch: Any,
    lr: float,
    *,
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
        memory: see the top of this file.
        batched: differentiate all m objectives at once with ``vmap``, which pays on GPUs with small models. Graphs that cannot
            be differentiated so (sparse embeddings, say) are row by row.
        step: index of the outer step, for error messages.

    Raises:
        InputError: a level does not depend on what it should.
        NonFiniteError: a value is not finite; names level and objective.
    """
    unroll = _Unroll(problem, [value.detach().requires_grad_() for value in start.upper], start.buffers, lr)
    if memory == "plain":
        return _plain(unroll, start, batches, upper_batch, batched, step)
    return _checkpointed(unroll, start, batches, upper_batch, batched, step)


class _Unroll:
    """One problem's lower steps at fixed α."""

    def __init__(self, problem: BilevelProblem, upper: list[Tensor], buffers: dict[str, Tensor], lr: float) -> None:
        self.problem = problem
        self.upper = upper
        self.buffers = buffers
        self.lr = lr

    def lower(self, omega: list[Tensor], batch: Any, *, create_graph: bool) -> tuple[Tensor, list[Tensor | None]]:
        """Value and gradient of f at ω."""
        value = self.problem.lower_at(Point(self.upper, omega, self.buffers), batch)
        return value, lower_gradients(self.problem, value, omega, create_graph=create_graph)

    def moved(self, omega: list[Tensor], gradients: list[Tensor | None]) -> list[Tensor]:
        """ω after one step."""
        return [
            value if gradient is None else value - self.lr * gradient for value, gradient in zip(omega, gradients, strict=True)
        ]

    def objectives(self, omega: list[Tensor], batch: Any) -> list[Tensor]:
        # On copies of the buffers: statistics are those of the lower level's batches.
        return self.problem.objectives_at(Point(self.upper, omega, _copies(self.buffers)), batch)


def _plain(unroll: _Unroll, start: Point, batches: Sequence[Any], upper_batch: Any, batched: bool, step: int) -> Hypergradients:
    omega = [value.detach().requires_grad_() for value in start.lower]
    values = []
    for batch in batches:
        value, gradients = unroll.lower(omega, batch, create_graph=True)
        omega = unroll.moved(omega, gradients)
        values.append(value.detach())
    check_lower(values, step)
    check_answer(omega, unroll.problem.lower_variables.names, len(batches), step)
    objectives = unroll.objectives(omega, upper_batch)
    names = unroll.problem.objectives
    upper_values = check_upper(objectives, names, step)
    _check_graphs(objectives, names)
    found = _vjp(objectives, unroll.upper, None, batched)
    _check_dependence(found, names)
    solution = Point(start.upper, [value.detach() for value in omega], unroll.buffers)
    return Hypergradients(_flat(found, unroll.upper), upper_values, solution, float(values[-1]), _reached(found))


def _checkpointed(
    unroll: _Unroll, start: Point, batches: Sequence[Any], upper_batch: Any, batched: bool, step: int
) -> Hypergradients:
    total = len(batches)
    length = max(1, round(total**0.5))
    omega = [value.detach() for value in start.lower]
    kept: list[tuple[list[Tensor], dict[str, Tensor], RandomState]] = []
    values: list[Tensor] = []
    for position in range(total):
        if position % length == 0:
            kept.append((omega, _copies(unroll.buffers), unroll.problem.random_state()))
        omega = _one(unroll, omega, batches[position], values)
    check_lower(values, step)
    check_answer(omega, unroll.problem.lower_variables.names, total, step)

    # The upper level: ∇_α F_i directly, and the adjoints v_i.
    reached = [value.requires_grad_() for value in omega]
    objectives = unroll.objectives(reached, upper_batch)
    names = unroll.problem.objectives
    upper_values = check_upper(objectives, names, step)
    _check_graphs(objectives, names)
    found = _vjp(objectives, [*unroll.upper, *reached], None, batched)
    count = len(unroll.upper)
    direct = [row[:count] for row in found]
    adjoints = [_filled(row[count:], reached) for row in found]
    solution = Point(start.upper, [value.detach() for value in reached], unroll.buffers)
    depends = [any(entry is not None for entry in row) for row in direct]
    del objectives

    # Recomputing a segment must leave no trace: it has the buffers and the random state of its first time.
    for segment in reversed(range(len(kept))):
        first, buffers, state = kept.pop()
        replay = _Unroll(unroll.problem, unroll.upper, buffers, unroll.lr)
        own = batches[segment * length : (segment + 1) * length]
        with state.replayed():
            points = [(first, _copies(buffers), unroll.problem.random_state())]
            for batch in own[:-1]:
                moved = _one(replay, points[-1][0], batch, [])
                points.append((moved, _copies(replay.buffers), unroll.problem.random_state()))
        for batch in reversed(own):
            at, buffers_at, state_at = points.pop()
            replay.buffers = buffers_at
            leaves = [value.detach().requires_grad_() for value in at]
            with state_at.replayed():
                _, gradients = replay.lower(leaves, batch, create_graph=True)
            used = [(position, gradient) for position, gradient in enumerate(gradients) if gradient is not None]
            for row, products in enumerate(_products(used, adjoints, [*unroll.upper, *leaves], batched)):
                # In place: the adjoints are this function's own.
                for position, product in enumerate(products):
                    if product is None:
                        continue
                    if position >= count:
                        adjoints[row][position - count].sub_(product, alpha=unroll.lr)
                    else:
                        depends[row] = True
                        change = product * -unroll.lr
                        before = direct[row][position]
                        direct[row][position] = change if before is None else before + change
    _check_dependence([row if depends[i] else [None] * count for i, row in enumerate(direct)], names)
    return Hypergradients(_flat(direct, unroll.upper), upper_values, solution, float(values[-1]), _reached(direct))


def _one(unroll: _Unroll, omega: list[Tensor], batch: Any, values: list[Tensor]) -> list[Tensor]:
    """One step without a graph."""
    leaves = [value.detach().requires_grad_() for value in omega]
    value, gradients = unroll.lower(leaves, batch, create_graph=False)
    values.append(value.detach())
    with torch.no_grad():
        return [value.detach() for value in unroll.moved(leaves, gradients)]


def _products(
    used: Sequence[tuple[int, Tensor]], adjoints: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor], batched: bool
) -> list[list[Tensor | None]]:
    """Products of the adjoints with the second derivatives of f: one row per objective, one entry per input."""
    # A gradient that does not depend on the variables (f linear in them) has no second derivative.
    curved = [(position, gradient) for position, gradient in used if gradient.requires_grad]
    if not curved:
        return [[None] * len(inputs) for _ in adjoints]
    outputs = [gradient for _, gradient in curved]
    seeds = [[row[position] for position, _ in curved] for row in adjoints]
    return _vjp(outputs, inputs, seeds, batched)


def _vjp(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Sequence[Tensor]] | None, batched: bool
) -> list[list[Tensor | None]]:
    """Rows of vector-Jacobian products: with ``seeds`` one per row of them, without, the gradient of each output alone."""
    if seeds is None:
        rows = len(outputs)
        if rows == 1 or not batched:
            return [
                list(
                    torch.autograd.grad(
                        origins([output]),
                        inputs,
                        [torch.ones_like(output)],
                        retain_graph=position < rows - 1,
                        allow_unused=True,
                    )
                )
                for position, output in enumerate(outputs)
            ]
        asks = [torch.zeros(rows, dtype=output.dtype, device=output.device) for output in outputs]
        for position, ask in enumerate(asks):
            ask[position] = 1.0
        found = gradients_at_once(origins(outputs), inputs, asks)
    else:
        rows = len(seeds)
        if rows == 1 or not batched:
            return [
                list(torch.autograd.grad(outputs, inputs, list(row), retain_graph=position < rows - 1, allow_unused=True))
                for position, row in enumerate(seeds)
            ]
        stacked = [torch.stack(column) for column in zip(*seeds, strict=True)]
        found = gradients_at_once(outputs, inputs, stacked)
    if isinstance(found, Exception):
        return _vjp(outputs, inputs, seeds, False)
    return [[None if entry is None else entry[row] for entry in found] for row in range(rows)]


def _check_graphs(objectives: Sequence[Tensor], names: Sequence[str]) -> None:
    for name, objective in zip(names, objectives, strict=True):
        if not objective.requires_grad:
            raise InputError(
                f'upper(α, ω, batch): the objective "{name}" depends on none of the variables; it was detached, or computed '
                f"under torch.no_grad()"
            )


def _check_dependence(found: Sequence[Sequence[Tensor | None]], names: Sequence[str]) -> None:
    for name, row in zip(names, found, strict=True):
        if all(entry is None for entry in row):
            raise InputError(
                f'upper(α, ω, batch): the objective "{name}" does not depend on the upper-level variables, neither directly '
                f"nor through the lower level's answer ω"
            )


def _reached(rows: Sequence[Sequence[Tensor | None]]) -> tuple[bool, ...]:
    return tuple(any(entry is not None for entry in column) for column in zip(*rows, strict=True))


def _flat(rows: Sequence[Sequence[Tensor | None]], inputs: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.cat([flat(entry) for entry in _filled(row, inputs)]) for row in rows])


def _filled(row: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Tensor]:
    return [
        torch.zeros_like(value) if entry is None else entry.detach().clone() for entry, value in zip(row, inputs, strict=True)
    ]


def _copies(buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in buffers.items()}
