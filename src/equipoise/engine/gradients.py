"""The gradient engine: one row per task in one buffer, and the weighted sum of the rows back into ``.grad``.

The buffer holds a row for each task that is there, and its memory is used again from step to step. While a task is
differentiated, a hook on each shared parameter moves the fresh gradient into the task's row and lets go of it, while it is
still warm in the cache: nothing of length P is ever concatenated or stacked, and no second copy of the gradients is held. All
other leaves (task-specific parameters) accumulate their ``.grad`` as in any backward pass. Rows hold real numbers, of which a
complex parameter has two per entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from equipoise.engine.batched import gradients_at_once
from equipoise.engine.gramian import gramian
from equipoise.engine.graph import origin, origins
from equipoise.engine.reals import as_real, like, real_dtype, size
from equipoise.engine.sparse import added
from equipoise.errors import InputError

__all__ = ["TaskGradients"]

# Parameters start at multiples of this many entries, so that vectorised kernels meet aligned memory.
_ALIGNMENT = 16
# So many recordings with a quarter of the rows or fewer, and the memory of the others is given back.
_PATIENCE = 10


class TaskGradients:
    """Task gradients with respect to the shared parameters, one row per task that is there.

    Attributes:
        rows: ``[k, P]``, real, with padding between the parameters.
        reached: for each parameter, whether any task's gradient arrived there in the last recording.
        sparse: for each parameter, whether a gradient that arrived there was sparse.

    Without parameters (all of them may be frozen) the rows are empty, and the tasks' own parameters are all that is served.

    Raises:
        InputError: parameters on several devices.
    """

    def __init__(self, parameters: Sequence[Tensor], tasks: int = 1) -> None:
        devices = {parameter.device for parameter in parameters}
        if len(devices) > 1:
            raise InputError(f"shared parameters must lie on one device; these lie on {', '.join(sorted(map(str, devices)))}")
        self.parameters = list(parameters)
        self._kinds = [(parameter.dtype, parameter.device) for parameter in self.parameters]
        dtype = real_dtype(self.parameters) if self.parameters else None
        self._offsets: list[int] = []
        length = 0
        for parameter in self.parameters:
            self._offsets.append(length)
            length += -(-size(parameter) // _ALIGNMENT) * _ALIGNMENT
        self._length = length
        # Rows a multiple of the page size apart would compete for the same places of the cache.
        length += _ALIGNMENT if length and length % 1024 == 0 else 0
        self._width = length
        self._storage = torch.empty(0, length, dtype=dtype, device=next(iter(devices), None))
        self._unneeded = 0
        self._views: list[list[Tensor]] = []
        self._written: list[bytearray] = []
        self.rows = self._storage
        self.fillings = 0
        self.begin(tasks)
        self.reached = [True] * len(self.parameters)
        self.sparse = [False] * len(self.parameters)
        self._row = -1

    @property
    def tasks(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def serves(self, parameters: Sequence[Tensor]) -> bool:
        """Whether this buffer fits these parameters, which may have been moved, cast or reshaped in place."""
        return len(parameters) == len(self.parameters) and all(
            a is b and (a.dtype, a.device) == kind and a.shape == view.shape
            for a, b, kind, view in zip(parameters, self.parameters, self._kinds, self._views[0], strict=True)
        )

    def begin(self, tasks: int) -> None:
        """Makes it a buffer of so many rows, whatever is in them."""
        self.fillings += 1
        # Where some batches hold many tasks and others few, the memory of the many is kept for a while.
        self._unneeded = self._unneeded + 1 if tasks * 4 <= len(self._storage) else 0
        if tasks > len(self._storage) or self._unneeded > _PATIENCE:
            self._views, self.rows = [], self._storage.new_empty(0, self._width)
            self._storage = self.rows  # lets go of the old ones first
            self._allocate(tasks)
        self.rows = self._storage[:tasks]

    def grow(self, tasks: int, at_most: int) -> None:
        """Adds rows, in the midst of a recording.

        Args:
            tasks: how many rows there are then.
            at_most: how many there can ever be.
        """
        before = self.rows
        if tasks > len(self._storage):
            self._allocate(max(tasks, min(at_most, 3 * len(before) // 2)))
            self._storage[: len(before)] = before
        self.rows = self._storage[:tasks]
        for written in self._written[len(before) : tasks]:
            written[:] = bytes(len(written))

    def arrange(self, order: Sequence[int | None]) -> None:
        """Puts the rows into another order, after a recording.

        Args:
            order: for each place the row that comes there, or ``None`` for zeros; it holds all rows.
        """
        if list(order) == list(range(self.tasks)):
            return
        if len(order) > self.tasks:
            self.grow(len(order), at_most=len(order))
        here = list(range(self.tasks))
        for place, source in enumerate(order):
            if source is not None and here[place] != source:
                other = here.index(source)
                held = self.rows[place].clone()
                self.rows[place] = self.rows[other]
                self.rows[other] = held
                here[place], here[other] = source, here[place]
        for place, source in enumerate(order):
            if source is None:
                self.rows[place].zero_()

    def _allocate(self, tasks: int) -> None:
        # Zeros, for the padding between parameters must not count in the Gramian.
        self._storage = self.rows.new_zeros(tasks, self._width)
        self._views = [self._split(row) for row in self._storage]
        kept = self._written[:tasks]
        self._written = kept + [bytearray(len(self.parameters)) for _ in range(tasks - len(kept))]
        self._unneeded = 0

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Catches the shared parameters' gradients in the body; their ``.grad`` is as before afterwards."""
        for written in self._written[: self.tasks]:
            written[:] = bytes(len(written))
        self.sparse = [False] * len(self.parameters)
        before = [parameter.grad for parameter in self.parameters]
        handles = []
        try:
            for position, parameter in enumerate(self.parameters):
                parameter.grad = None
                handles.append(parameter.register_post_accumulate_grad_hook(self._mover(position)))
            yield
            rows = self._written[: self.tasks]
            self.reached = [any(written[position] for written in rows) for position in range(len(before))]
            self._clear_unwritten()
        finally:
            for handle in handles:
                handle.remove()
            for parameter, grad in zip(self.parameters, before, strict=True):
                parameter.grad = grad

    def differentiate(
        self, row: int, loss: Tensor, seed: Tensor | None = None, *, retain_graph: bool, alone: bool = False
    ) -> None:
        """Adds the gradient of ``loss``, times ``seed``, to a row; to be called within :meth:`recording`.

        With ``alone`` only the shared parameters count; other leaves' ``.grad`` stays as it is.
        """
        self._row = row
        start = origin(loss)
        if seed is None and start is not loss:
            seed = torch.ones_like(loss)
        torch.autograd.backward(start, seed, retain_graph=retain_graph, inputs=self.parameters if alone else None)

    def differentiate_together(
        self, rows: Sequence[int], losses: Sequence[Tensor], seeds: Sequence[Tensor | None], *, chunk: int | None = None
    ) -> Exception | None:
        """Adds the gradients of several losses at once by batched (``vmap``) differentiation, ``chunk`` at once or all of them.

        Worth it where launching kernels is what takes time, that is on GPUs with small models; it needs the memory of
        ``chunk`` backward passes at once. Gradients are multiplied with ``seeds``, with 1 where these are ``None``.

        Losses whose graph cannot be differentiated so are differentiated one after the other.

        Returns:
            Why it could not be done at once, if it could not.
        """
        at_once = chunk or len(losses)
        for start in range(0, len(losses), at_once):
            part = list(losses[start : start + at_once])
            # Row i of the batch asks for the gradient of loss i alone.
            asks = [torch.zeros(len(part), dtype=loss.dtype, device=loss.device) for loss in part]
            for position, (ask, seed) in enumerate(zip(asks, seeds[start : start + at_once], strict=True)):
                ask[position] = 1.0 if seed is None else seed
            gradients = gradients_at_once(origins(part), self.parameters, asks)
            if isinstance(gradients, Exception):
                for row, loss, seed in zip(rows[start:], losses[start:], seeds[start:], strict=True):
                    self.differentiate(row, loss, seed, retain_graph=True, alone=True)
                return gradients
            for position, gradient in enumerate(gradients):
                if gradient is not None:
                    for row, piece in zip(rows[start : start + at_once], gradient, strict=True):
                        self._write(row, position, piece)
        return None

    def add(self, row: int, pieces: Sequence[Tensor | None]) -> None:
        """Adds something to a row, one entry per parameter; to be called within :meth:`recording`."""
        for position, piece in enumerate(pieces):
            if piece is not None:
                self._write(row, position, piece)

    def subtract(self, row: int, pieces: Sequence[Tensor | None]) -> None:
        """Takes something away from a row, one entry per parameter; to be called within :meth:`recording`."""
        for position, piece in enumerate(pieces):
            if piece is not None:
                self._write(row, position, -piece)

    def reaches(self, row: int, position: int) -> bool:
        """Whether a task's gradient arrived at a parameter in the present recording."""
        return bool(self._written[row][position])

    def row_norms(self) -> Tensor:
        """Norms of the rows, ``[k]``."""
        norms: Tensor = torch.linalg.vector_norm(self.rows, dim=1)
        return norms

    def gramian(self, inverses: Sequence[Tensor] | None = None) -> Tensor:
        """All inner products of the rows, ``[k, k]`` in float64; ``inverses`` as for :meth:`laid_out`."""
        return gramian(self.rows, self.laid_out(inverses))

    def laid_out(self, inverses: Sequence[Tensor] | None) -> Tensor | None:
        """One number per column of the rows, from tensors in the shapes of the parameters, in pairs for complex ones."""
        if inverses is None or not self.parameters:
            return None
        line = self.rows.new_zeros(self._width, dtype=torch.promote_types(self.rows.dtype, torch.float32))
        for view, piece in zip(self._split(line), inverses, strict=True):
            as_real(view).copy_(piece)
        return line

    def combine(self, weights: Tensor) -> Tensor:
        """The weighted sum of the rows, for weights ``[k]``: as long as a row, padding included."""
        with torch.no_grad(), torch.autocast(self.rows.device.type, enabled=False):
            # As a matrix product: on the CPU, torch's product with a vector was no faster and sometimes slower.
            return torch.mm(weights.to(self.rows)[None], self.rows)[0]

    def deliver(self, direction: Tensor) -> None:
        """Adds a direction to the ``.grad`` of the shared parameters.

        Args:
            direction: as long as a row. Where there is no ``.grad`` yet, it becomes a view of this tensor (a sparse copy
                where the tasks' gradients were sparse); parameters that no task reached keep none, so that optimizers leave
                them alone as they do after any backward pass.
        """
        for position, (parameter, piece) in enumerate(zip(self.parameters, self._split(direction), strict=True)):
            if not self.reached[position]:
                continue
            piece = piece.to(parameter.dtype)
            if self.sparse[position]:
                piece = piece.to_sparse(1)
            if parameter.grad is None or parameter.grad.is_sparse:
                parameter.grad = added(parameter.grad, piece)
            else:
                parameter.grad.add_(piece)

    def split(self, direction: Tensor) -> list[Tensor]:
        """Views of a direction in the shapes of the parameters; it is as long as a row."""
        return self._split(direction)

    def sizes(self) -> list[int]:
        """How many columns each parameter has in :meth:`compact` rows."""
        return [block.shape[1] for block in self._blocks()]

    def compact(self) -> Tensor:
        """The rows without padding, ``[k, P]``; a copy unless there is no padding between parameters."""
        if all(size(parameter) % _ALIGNMENT == 0 for parameter in self.parameters):
            return self.rows[:, : self._length]
        return torch.cat([view.reshape(self.tasks, -1) for view in self._blocks()], dim=1)

    def expand(self, direction: Tensor) -> Tensor:
        """A direction ``[P]`` without padding as one as long as a row."""
        if direction.numel() == self.rows.shape[1]:
            return direction
        padded = self.rows.new_zeros(self.rows.shape[1])
        start = 0
        for offset, parameter in zip(self._offsets, self.parameters, strict=True):
            padded[offset : offset + size(parameter)] = direction[start : start + size(parameter)]
            start += size(parameter)
        return padded

    def _blocks(self) -> Iterator[Tensor]:
        for offset, parameter in zip(self._offsets, self.parameters, strict=True):
            yield self.rows[:, offset : offset + size(parameter)]

    def _split(self, row: Tensor) -> list[Tensor]:
        return [
            like(parameter, row[offset : offset + size(parameter)])
            for offset, parameter in zip(self._offsets, self.parameters, strict=True)
        ]

    def _mover(self, position: int) -> Callable[[Tensor], None]:
        def move(parameter: Tensor) -> None:
            gradient = parameter.grad
            parameter.grad = None
            if gradient is not None:
                self._write(self._row, position, gradient)

        return move

    def _write(self, row: int, position: int, gradient: Tensor) -> None:
        if gradient.is_sparse:
            gradient = gradient.to_dense()
            self.sparse[position] = True
        view = self._views[row][position]
        if self._written[row][position]:
            view.add_(gradient)
        else:
            view.copy_(gradient)
            self._written[row][position] = 1

    def _clear_unwritten(self) -> None:
        """Tasks that do not reach a parameter have a zero gradient there."""
        for row, written in enumerate(self._written[: self.tasks]):
            if 1 not in written:
                self.rows[row].zero_()
            elif 0 in written:
                for position, flag in enumerate(written):
                    if not flag:
                        self._views[row][position].zero_()
