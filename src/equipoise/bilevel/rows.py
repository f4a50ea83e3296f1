"""The gradients of the upper objectives and of the constraint: as m + 1 rows, or streamed, without rows.

What a method needs of them is their inner products and, once these have decided, one combination. :class:`StreamedRows`
forms the inner products block by block of the graph, as :mod:`equipoise.engine.streamed` does, and with the constraint's
gradient, which is held; the combination is one more backward pass of the weighted sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.bilevel.levels import Levels, Row
from equipoise.engine.gradients import TaskGradients
from equipoise.engine.heads import HeadCut, gradients_at
from equipoise.engine.reals import as_real, real_dtype
from equipoise.engine.streamed import Streamed
from equipoise.errors import InputError

__all__ = ["DenseRows", "Rows", "StreamedRows", "check_streamed"]

# Numbers of a block's rows that are welcome, as in the step's own streaming.
_HELD = 2**22


class Rows(ABC):
    """Gradients with respect to α and ω, one per objective and, last, that of the constraint."""

    def __init__(self, levels: Levels, leaves: Sequence[Tensor]) -> None:
        self.levels = levels
        self.leaves = list(leaves)

    @property
    def dtype(self) -> torch.dtype:
        """Of the direction."""
        return real_dtype(self.leaves)

    def serves(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it can be used again for these."""
        return False

    @contextmanager
    def recording(self, count: int) -> Iterator[None]:
        """In the body ``count`` objectives and the constraint are given."""
        yield

    @abstractmethod
    def objectives(self, objectives: Sequence[Tensor], parts: int) -> None:
        """Adds the gradients of a micro-batch's objectives, one of so many."""

    @abstractmethod
    def constraint(self, plus: Row, minus: Row) -> None:
        """Gives the constraint's gradient: a difference of means over micro-batches and processes."""

    @abstractmethod
    def reaches(self, row: int, position: int) -> bool:
        """Whether a row depends on a variable."""

    @abstractmethod
    def gramian(self) -> NDArray[np.float64]:
        """All inner products, ``[m + 1, m + 1]``."""

    @abstractmethod
    def deliver(self, weights: NDArray[np.float64]) -> bool:
        """Makes the weighted sum the variables' ``.grad``, if it is finite; says whether."""


class DenseRows(Rows):
    """Holds all rows, of all micro-batches and processes."""

    def __init__(self, levels: Levels, leaves: Sequence[Tensor]) -> None:
        super().__init__(levels, leaves)
        self._rows = TaskGradients(self.leaves)
        self._count = 0

    def serves(self, leaves: Sequence[Tensor]) -> bool:
        return self._rows.serves(leaves)

    @contextmanager
    def recording(self, count: int) -> Iterator[None]:
        self._count = count
        self._rows.begin(count + 1)
        with self._rows.recording():
            yield
            processes = self.levels.processes
            if processes.count > 1:
                # The constraint's row is a mean already.
                shared = self._rows.rows[:count].contiguous()
                self._rows.rows[:count] = processes.sum(shared, "gradients of the upper level") / processes.count
            if self.levels.scale != 1.0:
                self._rows.rows[:count] /= self.levels.scale

    def objectives(self, objectives: Sequence[Tensor], parts: int) -> None:
        factor = self.levels.scale / parts
        for row, objective in enumerate(objectives):
            seed = None if factor == 1.0 else torch.full_like(objective, factor, requires_grad=False)
            self._rows.differentiate(row, objective, seed, retain_graph=row < len(objectives) - 1, alone=True)

    def constraint(self, plus: Row, minus: Row) -> None:
        self._rows.add(self._count, plus)
        self._rows.subtract(self._count, minus)

    def reaches(self, row: int, position: int) -> bool:
        return self._rows.reaches(row, position)

    def gramian(self) -> NDArray[np.float64]:
        return cast("NDArray[np.float64]", self._rows.gramian().cpu().numpy())

    def deliver(self, weights: NDArray[np.float64]) -> bool:
        direction = self._rows.combine(torch.from_numpy(weights))
        fine = bool(torch.isfinite(direction).all())
        if fine:
            self._rows.deliver(direction)
        return fine


class StreamedRows(Rows):
    """Holds the constraint's gradient and one block's rows; for one process, one micro-batch and no scale.

    Raises:
        InputError: several processes, or a scaler.
    """

    def __init__(self, levels: Levels, leaves: Sequence[Tensor]) -> None:
        super().__init__(levels, leaves)
        check_streamed(levels)  # again, for processes may have been started after the solver was made
        self._places = {id(leaf): place for place, leaf in enumerate(self.leaves)}
        self._bits: list[int] = []
        self._last: Row = []

    def objectives(self, objectives: Sequence[Tensor], parts: int) -> None:
        self._cut = HeadCut(dict(enumerate(objectives)), ranked=True)
        self._flows, self._own, _ = self._cut.differentiate({})
        self._shared = [leaf for leaf in self._cut.shared_leaves() if id(leaf) in self._places]
        self._bits = [0] * len(self.leaves)
        for leaf in self._shared:
            self._bits[self._places[id(leaf)]] = self._cut.every
        for task, found in self._cut.own.items():
            for leaf in found:
                if id(leaf) in self._places:
                    self._bits[self._places[id(leaf)]] |= 1 << task

    def constraint(self, plus: Row, minus: Row) -> None:
        self._last = []
        for own, taken in zip(plus, minus, strict=True):
            held = [part.to_dense() * sign for part, sign in ((own, 1), (taken, -1)) if part is not None]
            self._last.append(None if not held else held[0] if len(held) == 1 else held[0] + held[1])

    def reaches(self, row: int, position: int) -> bool:
        if row == len(self._cut.losses):
            return self._last[position] is not None
        return bool(self._bits[position] >> row & 1)

    def gramian(self) -> NDArray[np.float64]:
        count = len(self._cut.losses)
        total = torch.zeros(count + 1, count + 1, dtype=torch.float64, device="cpu")
        if self._shared:
            streamed = Streamed(self._cut, self._shared, max(1, _HELD // count))
            against = [self._last[self._places[id(leaf)]] for leaf in self._shared]
            total[:count, :count] = streamed.gramian(self._flows, against)
            total[:count, count] = streamed.products
        for task, leaves in self._cut.own.items():
            for leaf, gradient in zip(leaves, self._own[task], strict=True):
                if gradient is not None and id(leaf) in self._places:
                    last = self._last[self._places[id(leaf)]]
                    total[task, task] += _dot(gradient, gradient)
                    total[task, count] += 0.0 if last is None else _dot(gradient, last)
        total[count, :count] = total[:count, count]
        total[count, count] = sum(
            float(torch.linalg.vector_norm(as_real(last), dtype=torch.float64).square())
            for last in self._last
            if last is not None
        )
        return cast("NDArray[np.float64]", total.numpy())

    def deliver(self, weights: NDArray[np.float64]) -> bool:
        share = [float(weight) for weight in weights]
        flows = [_weighted(share, flow) for flow in self._flows]
        total: Row = [None if last is None else last * share[-1] for last in self._last]
        found = gradients_at(self._cut.edges, flows, self._shared)
        pieces = [*zip(self._shared, found, strict=True)]
        for task, leaves in self._cut.own.items():
            pieces += [(leaf, None if g is None else g * share[task]) for leaf, g in zip(leaves, self._own[task], strict=True)]
        for leaf, gradient in pieces:
            place = self._places.get(id(leaf))
            if place is not None and gradient is not None:
                before = total[place]
                total[place] = gradient.to_dense() if before is None else before + gradient
        del self._cut, self._flows, self._own, self._shared  # and the graph with them
        if not all(bool(torch.isfinite(as_real(entry)).all()) for entry in total if entry is not None):
            return False
        for leaf, entry in zip(self.leaves, total, strict=True):
            leaf.grad = None if entry is None else entry.to(leaf)
        return True


def check_streamed(levels: Levels, micro_batches: int = 1) -> None:
    """Raises InputError if rows cannot be streamed: of several micro-batches or processes, or with a scaler."""
    if micro_batches > 1 or not levels.plain:
        raise InputError(
            'memory="streamed" lets go of the rows of a block before the next one is differentiated, so nothing can be '
            "added to them from other micro-batches or processes, and a scaler cannot look at them; leave memory= out"
        )


def _weighted(share: Sequence[float], flow: Mapping[int, Tensor]) -> Tensor | None:
    total: Tensor | None = None
    for task, gradient in flow.items():
        total = gradient * share[task] if total is None else total.add_(gradient, alpha=share[task])
    return total


def _dot(a: Tensor, b: Tensor) -> float:
    return float((as_real(a.to_dense()).double() * as_real(b.to_dense()).double()).sum())
