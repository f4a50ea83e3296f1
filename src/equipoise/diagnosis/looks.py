"""Looks at the task gradients of a batch: exact, by proxies, and on the two halves of the batch apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.balance.base import GramianBalancer
from equipoise.bilevel.weighting import halves
from equipoise.errors import InputError, NonFiniteError
from equipoise.objective import LossFunction, Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.proxy import Proxy
from equipoise.tasks import as_losses

__all__ = ["Look", "Looks", "endless"]

Array = NDArray[np.float64]

_APART = "\x1f"  # between a task's name and the number of the half


@dataclass(frozen=True)
class Look:
    """What was seen of one batch.

    Attributes:
        step: how many steps had been taken.
        tasks: the k tasks that the batch held.
        gramian: exact ``[k, k]``, of the whole batch.
        proxies: name of each proxy → its Gramian ``[k, k]``, up to a factor.
        halved: the m tasks that both halves held.
        within: their Gramians on either half, ``[2, m, m]``.
        between: ``[m, m]``: inner products of the gradients on the first half (rows) and on the second.
    """

    step: int
    tasks: tuple[str, ...]
    gramian: Array
    proxies: Mapping[str, Array] = field(default_factory=dict)
    halved: tuple[str, ...] = ()
    within: Array | None = None
    between: Array | None = None


class _Shown(GramianBalancer):
    """Weighs all tasks alike and keeps the Gramians that it is shown."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def solve(self, gramian: Array) -> Array:
        """One per task."""
        self.seen.append(gramian.copy())
        return np.ones(len(gramian))


class _Tried(Proxy):
    """Forms the Gramians of all sources in every step, beside the exact one, and never chooses."""

    def __init__(self) -> None:
        super().__init__("auto")
        self.names: tuple[str, ...] = ()

    def tried(self, cosines: Mapping[str, float]) -> None:
        """Keeps which sources there were."""
        self.names = tuple(cosines)


class Looks:
    """Looks at batches without a trace: parameters, buffers, ``.grad`` and the random state stay as they are.

    Args:
        objective: model and losses.
        shared: as for :class:`~equipoise.MultiTaskOptimizer`.

    Attributes:
        lacking: what could not be looked at → why, in words.
    """

    def __init__(self, objective: Objective, shared: nn.Module | Sequence[Tensor] | None = None) -> None:
        self.objective = objective
        self.lacking: dict[str, str] = {}
        self._shared = shared
        self._whole: MultiTaskOptimizer | None = None
        self._halves: MultiTaskOptimizer | None = None

    def look(self, step: int, batch: Any, other: Any) -> Look:
        """Looks at a batch, and at a further one where the first cannot be cut in two.

        Raises:
            InputError: losses or parameters that cannot be used.
            NonFiniteError: a loss or gradient is not finite.
        """
        with self._undone():
            tasks, seen, names = self._seen_whole(batch)
        *tried, exact = seen
        proxies = dict(zip(names, tried, strict=False))
        halved: tuple[str, ...] = ()
        within = between = None
        if "halves" not in self.lacking:
            try:
                with self._undone():
                    halved, within, between = self._seen_halves(*self._pair(batch, other))
            except (InputError, NonFiniteError) as error:
                self.lacking["halves"] = str(error)
        return Look(step, tasks, exact, proxies, halved, within, between)

    @property
    def shared(self) -> list[Tensor]:
        """The parameters that the tasks share, once a batch was looked at."""
        return [] if self._whole is None else self._whole.shared

    def _seen_whole(self, batch: Any) -> tuple[tuple[str, ...], list[Array], tuple[str, ...]]:
        if self._whole is None and "proxies" not in self.lacking:
            try:
                self._whole = self._still(self.objective, self._shared, proxy=_Tried())
                return self._step(self._whole, batch)
            except InputError as error:
                self.lacking["proxies"] = str(error)
                self._whole = None
        if self._whole is None:
            self._whole = self._still(self.objective, self._shared)
        return self._step(self._whole, batch)

    def _seen_halves(self, first: Any, second: Any) -> tuple[tuple[str, ...], Array, Array]:
        if self._halves is None:
            names = [f"{task}{_APART}{half}" for half in (0, 1) for task in self.objective.tasks.names]
            both = Objective(self.objective.model, _both(self.objective), tasks=names)
            # Said, because two losses reach a head here: those of the same task on the two halves.
            self._halves = self._still(both, self.shared, memory="streamed")
        present, (*_, gramian), _ = self._step(self._halves, (first, second))
        places = {name: place for place, name in enumerate(present)}
        tasks = tuple(task for task in self.objective.tasks.names if {f"{task}{_APART}0", f"{task}{_APART}1"} <= places.keys())
        one, two = ([places[f"{task}{_APART}{half}"] for task in tasks] for half in (0, 1))
        within = np.stack([gramian[np.ix_(one, one)], gramian[np.ix_(two, two)]])
        return tasks, within, gramian[np.ix_(one, two)]

    def _pair(self, batch: Any, other: Any) -> tuple[Any, Any]:
        if "cut" not in self.lacking:
            try:
                return halves(batch)
            except InputError as error:
                self.lacking["cut"] = str(error).partition(". Give step()")[0]
        return batch, other

    def _still(self, objective: Objective, shared: Any, **options: Any) -> MultiTaskOptimizer:
        """Steps of length zero, for the sake of their reports."""
        parameters = [parameter for parameter in self.objective.model.parameters() if parameter.requires_grad]
        return MultiTaskOptimizer(objective, torch.optim.SGD(parameters, lr=0.0), _Shown(), shared=shared, **options)

    @staticmethod
    def _step(mtl: MultiTaskOptimizer, batch: Any) -> tuple[tuple[str, ...], list[Array], tuple[str, ...]]:
        shown = mtl.balancer
        assert isinstance(shown, _Shown)
        shown.seen.clear()
        mtl.step(batch)
        assert mtl.last is not None
        if not shown.seen:
            raise InputError(
                "the losses reach no parameter that two tasks share, so there is nothing to diagnose; is the model frozen, or "
                "does each task have a model of its own?"
            )
        return mtl.last.tasks, list(shown.seen), mtl.proxy.names if isinstance(mtl.proxy, _Tried) else ()

    @contextmanager
    def _undone(self) -> Iterator[None]:
        model = self.objective.model
        gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        try:
            with self.objective.random_state().replayed():
                yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            for parameter, gradient in gradients:
                parameter.grad = gradient


def _both(objective: Objective) -> LossFunction:
    """The losses on a pair of batches, side by side."""

    def losses(model: Any, pair: tuple[Any, Any]) -> dict[str, Any]:
        known = set(objective.tasks.names)
        return {
            f"{task}{_APART}{half}": loss
            for half, batch in enumerate(pair)
            for task, loss in as_losses(objective.losses(model, batch), objective.tasks.names, some=False).items()
            if task in known
        }

    return losses


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Batches without end, pass after pass.

    Raises:
        InputError: a pass that gives nothing, or something that can be gone through only once.
    """
    epoch = 0
    while True:
        for teller in (loader, getattr(loader, "sampler", None)):
            tell = getattr(teller, "set_epoch", None)
            if tell is not None:
                tell(epoch)
        nothing = True
        for batch in loader:
            nothing = False
            yield batch
        if nothing:
            raise InputError(
                f"the loader gave no batch in pass {epoch + 1}; give something that can be gone through again and again, such "
                f"as a DataLoader or a list of batches"
            )
        epoch += 1
