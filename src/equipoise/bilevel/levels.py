"""Both levels with their derivatives: means over micro-batches and processes, free of a gradient scaler's scale."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.distributed import Processes
from equipoise.engine.batched import gradients_at_once
from equipoise.engine.graph import origins
from equipoise.errors import InputError, NonFiniteError
from equipoise.modes import differentiable_twice, without_autocast

__all__ = [
    "Curvature",
    "Levels",
    "Parts",
    "Products",
    "Row",
    "Weigh",
    "added",
    "check_reached",
    "copies",
    "grad_rows",
    "lower_gradients",
]

Parts = Sequence[Any]
"""The micro-batches of one evaluation; their mean counts."""

Products = Literal["auto", "exact", "differences"]
Row = list[Tensor | None]
Weigh = Callable[[Tensor], Tensor]
"""Weights of the objectives from their values ``[m]``, where these alone decide."""


class Levels:
    """A problem's functions as a solver sees them.

    Args:
        problem: whose functions they are.
        processes: over which means are taken.
        scaler: multiplies what is differentiated, so that half precision holds its gradients; divided out again here.

    Attributes:
        step: index of the outer step, for error messages.
    """

    def __init__(self, problem: BilevelProblem, processes: Processes | None = None, scaler: Any = None) -> None:
        self.problem = problem
        self.processes = Processes() if processes is None else processes
        self.scaler = scaler
        self.step = 0

    @property
    def plain(self) -> bool:
        """Whether one process differentiates without a scale."""
        return self.processes.count == 1 and self.scaler is None

    @property
    def scale(self) -> float:
        """What is differentiated is multiplied with this."""
        return 1.0 if self.scaler is None else float(self.scaler.get_scale())

    def seed(self, value: Tensor, parts: Parts, share: float = 1.0) -> Tensor | None:
        """What a part's value is multiplied with before it is differentiated; ``None`` for 1."""
        factor = share * self.scale / len(parts)
        return None if factor == 1.0 else torch.full_like(value, factor, requires_grad=False)

    def not_finite(self, which: str, tasks: tuple[str, ...]) -> NonFiniteError:
        """The error that says which gradient, or direction, is not finite."""
        text = f"{which} is not finite in step {self.step}; the step was not taken and nothing has changed"
        return NonFiniteError(text, tasks=tasks, step=self.step, what="gradient")

    def objectives(self, point: Point, part: Any) -> list[Tensor]:
        """F on a micro-batch. Raises InputError: an objective depends on no variable."""
        found = self.problem.objectives_at(point, part)
        for name, objective in zip(self.problem.objectives, found, strict=True):
            if not objective.requires_grad:
                raise InputError(
                    f'upper(α, ω, batch): the objective "{name}" depends on none of the variables; it was detached, or '
                    f"computed under torch.no_grad()"
                )
        return found

    def lower(self, point: Point, parts: Parts, wanted: Sequence[Tensor], share: float = 1.0) -> tuple[Tensor, Row]:
        """f, detached, and its gradients, times ``share``; ``None`` for what f does not depend on."""
        values, total = self.slopes(point, parts, wanted, share)
        return self.mean(values), self.joint(total, wanted)

    def slopes(self, point: Point, parts: Parts, wanted: Sequence[Tensor], share: float = 1.0) -> tuple[list[Tensor], Row]:
        """F on each of this process's micro-batches, detached, and the sum of its gradients, with the scale."""
        values: list[Tensor] = []
        total: Row = [None] * len(wanted)
        for part in parts:
            value = self.problem.lower_at(point, part)
            values.append(value.detach())
            if value.requires_grad:
                found = torch.autograd.grad(value, wanted, self.seed(value, parts, share), allow_unused=True)
                total = added(total, found)
        return values, total

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        """The mean of detached values, over the processes as well."""
        value = values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)
        count = self.processes.count
        return value if count == 1 else (self.processes.sum(value.double(), "values") / count).to(value)

    def joint(self, gradients: Row, like: Sequence[Tensor]) -> Row:
        """Sums over micro-batches as means over the processes, without the scale; checks what the scale may have broken."""
        count = self.processes.count
        if count > 1:
            anywhere = self.processes.either([[entry is not None for entry in gradients]], "which gradients there are")[0]
            held = [place for place, there in enumerate(anywhere) if there]
            whole = [torch.zeros_like(like[p]) if gradients[p] is None else gradients[p].to_dense() for p in held]  # type: ignore[union-attr]
            for place, summed in zip(held, self.processes.sum_all(whole, "gradients", met=True), strict=True):
                gradients[place] = summed / count
        if self.scaler is None:
            return gradients
        gradients = [None if entry is None else entry / self.scale for entry in gradients]
        if not all(bool(torch.isfinite(entry).all()) for entry in gradients if entry is not None):
            raise self.not_finite(f"a gradient at the scaler's scale of {self.scale:g}", ("lower",))
        return gradients


class Curvature:
    """Products with the second derivatives of f at a point: of ∇_ω f with respect to ω and α.

    ``"exact"`` ones differentiate ∇_ω f once more, and keep its graph for further products; ``"differences"`` are central
    ones of first derivatives, (∇f(ω + εv) − ∇f(ω − εv))/2ε with ε = (1 + ‖ω‖) u^⅓/‖v‖, u the precision of ω: an error of
    about u^⅔ for two evaluations per product.

    Args:
        levels: whose.
        point: α and ω, leaves; evaluations leave its buffers as they are.
        parts: micro-batches of f.
        exact: which of the two.
    """

    def __init__(self, levels: Levels, point: Point, parts: Parts, *, exact: bool) -> None:
        self.levels, self.point, self.parts, self.exact = levels, point, parts, exact
        self._state = levels.problem.random_state()
        self._graphs: list[list[tuple[int, Tensor]]] | None = None

    def products(
        self, rows: Sequence[Sequence[Tensor]], *, upper: bool, lower: bool = True, batched: bool = False
    ) -> list[Row]:
        """For every row v: ∇²_αω f v, if ``upper``, and ∇²_ωω f v, if ``lower``; ``None`` for zeros."""
        point = self.point
        inputs = [*(point.upper if upper else ()), *(point.lower if lower else ())]
        find = self._exact if self.exact else self._differences
        found = find(rows, inputs, batched)
        return [self.levels.joint(row, inputs) for row in found]

    def _exact(self, rows: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor], batched: bool) -> list[Row]:
        if self._graphs is None:
            self._graphs = [self._graph(part) for part in self.parts]
        totals: list[Row] = [[None] * len(inputs) for _ in rows]
        for curved in self._graphs:
            if curved:
                seeds = [[row[place] for place, _ in curved] for row in rows]
                found = grad_rows([gradient for _, gradient in curved], inputs, seeds, batched, retain_graph=True)
                totals = [added(total, row) for total, row in zip(totals, found, strict=True)]
        return totals

    def _graph(self, part: Any) -> list[tuple[int, Tensor]]:
        at = Point(self.point.upper, self.point.lower, copies(self.point.buffers))
        with self._state.replayed(), differentiable_twice():
            value = self.levels.problem.lower_at(at, part)
            gradients = lower_gradients(
                self.levels.problem, value, at.lower, create_graph=True, seed=self.levels.seed(value, self.parts)
            )
        # A gradient that does not depend on the variables (f linear in them) has no second derivative.
        return [(place, g) for place, g in enumerate(gradients) if g is not None and g.requires_grad]

    def _differences(self, rows: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor], batched: bool) -> list[Row]:
        lower = [value.detach() for value in self.point.lower]
        unit = max(torch.finfo(value.dtype).eps for value in lower) ** (1 / 3)
        count = len(self.point.upper)
        uppers = [value.detach().requires_grad_() for value in self.point.upper]
        places = {id(value): place for place, value in enumerate([*self.point.upper, *self.point.lower])}
        wanted = [places[id(value)] for value in inputs]
        found: list[Row] = []
        for row in rows:
            length = _norm(row)
            if length == 0.0:
                found.append([None] * len(inputs))
                continue
            step = (1.0 + _norm(lower)) * unit / length
            sides: list[Row] = []
            for sign in (1.0, -1.0):
                moved = [value.add(v, alpha=sign * step).requires_grad_() for value, v in zip(lower, row, strict=True)]
                leaves = [*uppers, *moved]
                at = Point(uppers, leaves[count:], copies(self.point.buffers))
                # A half-precision forward pass would drown the difference.
                with self._state.replayed(), without_autocast(lower[0].device):
                    sides.append(self.levels.slopes(at, self.parts, [leaves[p] for p in wanted])[1])
            found.append([None if a is None or b is None else (a - b) / (2 * step) for a, b in zip(*sides, strict=True)])
        return found


def lower_gradients(
    problem: BilevelProblem, value: Tensor, lower: Sequence[Tensor], *, create_graph: bool = False, seed: Tensor | None = None
) -> Row:
    """∇_ω f, one entry per variable; ``None`` for variables that f does not depend on.

    Raises:
        InputError: f depends on none of them.
    """
    found: Sequence[Tensor | None] = ()
    if value.requires_grad:
        found = torch.autograd.grad(value, lower, seed, create_graph=create_graph, allow_unused=True)
    return check_reached(problem, found)


def check_reached(problem: BilevelProblem, found: Sequence[Tensor | None]) -> Row:
    """Raises InputError if f has no gradient with respect to any lower-level variable."""
    if all(gradient is None for gradient in found):
        names = problem.lower_variables.names
        raise InputError(
            "lower(α, ω, batch) has no gradient with respect to the lower-level variables "
            f"({', '.join(names[:3])}{' …' if len(names) > 3 else ''}): it does not "
            "use them, or was detached or computed under torch.no_grad()"
        )
    return list(found)


def grad_rows(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    seeds: Sequence[Sequence[Tensor]] | None,
    batched: bool,
    *,
    factor: float = 1.0,
    retain_graph: bool = False,
) -> list[Row]:
    """Rows of vector-Jacobian products: with ``seeds`` one per row, else each output's gradient, times ``factor``."""
    if seeds is None:
        rows = len(outputs)
        pairs = [(origins([output]), [torch.full_like(output, factor, requires_grad=False)]) for output in outputs]
        asks = [torch.zeros(rows, dtype=output.dtype, device=output.device) for output in outputs]
        for position, ask in enumerate(asks):
            ask[position] = factor
    else:
        rows = len(seeds)
        pairs = [(list(outputs), list(row)) for row in seeds]
        asks = [torch.stack(column) for column in zip(*seeds, strict=True)] if batched else []
    if batched and rows > 1:
        found = gradients_at_once(origins(outputs) if seeds is None else outputs, inputs, asks)
        if not isinstance(found, Exception):
            return [[None if entry is None else entry[row] for entry in found] for row in range(rows)]
    return [
        list(torch.autograd.grad(ends, inputs, own, retain_graph=retain_graph or place < rows - 1, allow_unused=True))
        for place, (ends, own) in enumerate(pairs)
    ]


def copies(buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Buffers that an evaluation may change."""
    return {name: buffer.clone() for name, buffer in buffers.items()}


def added(total: Row, found: Sequence[Tensor | None]) -> Row:
    """Their sum, entry by entry."""
    return [own if new is None else new if own is None else own + new for own, new in zip(total, found, strict=True)]


def _norm(tensors: Sequence[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(tensor.detach()).double().cpu() for tensor in tensors]
    return float(functools.reduce(torch.hypot, norms))
