"""What methods keep per task: options as numbers, preferences, sums over an epoch, rows as long as the gradients."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equipoise.balance.base import (
    Balancer,
    GradientBalancer,
    GramianBalancer,
    Layout,
    LossBalancer,
    Observation,
    as_numbers,
    finite_direction,
)
from equipoise.errors import InputError, near_misses, warn_once
from equipoise.states import Maybe, Of, Whole

__all__ = [
    "PerTask",
    "PreferenceBalancer",
    "Preferring",
    "RowsBalancer",
    "add_losses",
    "mixed_row",
    "move_rows",
    "place_of",
    "remind_of_epochs",
]

# Many an epoch is shorter; in a longer one, a reminder does no harm.
_PATIENCE = 1_000


class PerTask:
    """One finite number per task.

    Args:
        option: what the option is called.
        given: the numbers in the tasks' order or by name, or one number for all of them.
        least: no number may be below this.
        endless: whether a number may be infinite.

    Raises:
        InputError: a number is not finite or below ``least``.
    """

    def __init__(
        self, option: str, given: float | Sequence[float] | Mapping[str, float], least: float = -math.inf, endless: bool = False
    ) -> None:
        self.option = option
        self.given: float | list[float] | dict[str, float]
        if isinstance(given, Mapping):
            self.given = {str(name): float(value) for name, value in given.items()}
        elif isinstance(given, int | float):
            self.given = float(given)
        else:
            self.given = [float(value) for value in given]
        if any(not (value >= least and (math.isfinite(value) or (endless and value == math.inf))) for value in self.values):
            floor = "" if least == -math.inf else f" and at least {least:g}"
            raise InputError(f"{option} must be finite{floor}; got {self.given}")

    @property
    def values(self) -> list[float]:
        """The numbers alone, in the order in which they were given."""
        if isinstance(self.given, float):
            return [self.given]
        return list(self.given.values()) if isinstance(self.given, dict) else self.given

    def of_all(self, tasks: tuple[str, ...]) -> list[float]:
        """The numbers of all tasks. Raises InputError: the numbers are not those of the tasks."""
        return self.of_present(Observation(tasks, tuple(range(len(tasks)))))

    def of_present(self, observation: Observation) -> list[float]:
        """The numbers of the tasks present. Raises InputError: the numbers are not those of the tasks."""
        return self.of_some(observation.tasks, observation.present)

    def of_some(self, tasks: tuple[str, ...], present: Sequence[int]) -> list[float]:
        """The same, for tasks and the positions of those present; without names of tasks, these are all there are."""
        if isinstance(self.given, float):
            return [self.given] * len(present)
        total = len(tasks) or len(present)
        if isinstance(self.given, dict):
            if not tasks:
                raise InputError(f"{self.option} given by name needs the tasks' names; use the balancer in a step")
            for name in self.given:
                if name not in tasks:
                    raise InputError(f'{self.option} names a task "{name}", which does not exist.{near_misses(name, tasks)}')
            missing = [name for name in tasks if name not in self.given]
            if missing:
                raise InputError(f"{self.option} lacks {', '.join(missing)}; give a number for every task")
            return [self.given[tasks[position]] for position in present]
        if len(self.given) != total:
            named = f" ({', '.join(tasks)})" if tasks else ""
            raise InputError(f"{self.option} has {len(self.given)} numbers for {total} tasks{named}")
        return [self.given[position] for position in present]

    def __repr__(self) -> str:
        return repr(self.given)


class Preferring:
    """A balancer with the option ``preference``: what it means is in the registry, and the guide has a table of it.

    Attributes:
        preference: one number per task, at least 0, in the tasks' order or by name; ``None`` where none was given. A batch that
            lacks tasks uses the numbers of those it holds, as they are.
    """

    preference: PerTask | None = None

    def prefer(self, preference: float | Sequence[float] | Mapping[str, float] | None) -> None:
        """Prefers something else from the next decision on.

        Raises:
            InputError: negative or not finite; nothing has changed.
        """
        self.preference = None if preference is None else PerTask("preference", preference, least=0)

    def shares(self, tasks: tuple[str, ...], present: Sequence[int]) -> list[float]:
        """The preferences of the tasks present, with sum 1; equal ones where none was given, or where all of these are 0."""
        given = [1.0] * len(present) if self.preference is None else self.preference.of_some(tasks, present)
        total = sum(given)
        return [value / total for value in given] if total > 0 else [1 / len(given)] * len(given)

    def _named(self) -> list[str]:
        return [] if self.preference is None else [f"preference={self.preference}"]


class PreferenceBalancer(Preferring, GramianBalancer):
    """A balancer on the Gramian in which tasks can count more or less.

    Args:
        preference: one number per task, at least 0, in the tasks' order or by name; equal ones if left out, see ``usual``.
            A batch that lacks tasks uses the numbers of those it holds, as they are.

    Raises:
        InputError: negative, non-finite, or not one number per task.
    """

    usual = "mean"
    """What is taken where no preference is given: ``"mean"`` is 1/k for each of k tasks, ``"sum"`` is 1."""

    def __init__(self, preference: Sequence[float] | Mapping[str, float] | None = None) -> None:
        self.prefer(preference)
        self._present: tuple[tuple[str, ...], tuple[int, ...]] | None = None

    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights ``[k]`` from the Gramian and the preferences of the same tasks."""
        raise TypeError(f"{type(self).__name__} implements neither combine() nor solve()")

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present, with their preferences."""
        self._present = (observation.tasks, observation.present)
        try:
            return self.weights(observation.needed("gramian"))
        finally:
            self._present = None

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights from one Gramian; of all tasks, unless a step says which are present."""
        size = len(gramian)
        given = self._given(size)
        return self.combine(gramian, np.full(size, 1.0 / size if self.usual == "mean" else 1.0) if given is None else given)

    def weights(self, gramian: Tensor | ArrayLike) -> Tensor:
        """See :meth:`~equipoise.balance.GramianBalancer.weights`; here the Gramian is that of all tasks."""
        return super().weights(gramian)

    def _given(self, size: int) -> NDArray[np.float64] | None:
        """The preferences of the tasks present, if there are any."""
        if self.preference is None:
            return None
        return np.array(self.preference.of_some(*self._among(size)))

    def _among(self, size: int) -> tuple[tuple[str, ...], Sequence[int]]:
        """Names of all tasks and positions of those present in a step; outside one, no names and all ``size`` of them."""
        return self._present or ((), range(size))

    def _ratios(self, size: int) -> NDArray[np.float64] | None:
        """The same with a mean of 1; as they are where all are 0."""
        given = self._given(size)
        mean = 0.0 if given is None else float(given.mean())
        return given / mean if given is not None and mean > 0 else given

    def _options(self) -> list[str]:
        return self._named()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._options())})"


def add_losses(sums: Tensor | None, counts: Tensor | None, observation: Observation) -> tuple[Tensor, Tensor]:
    """Adds a step's losses.

    Args:
        sums: of the losses so far ``[K]``; ``None`` at the beginning of an epoch.
        counts: in how many steps each task was seen ``[K]``.
        observation: of the step.

    Returns:
        New sums and counts, in float64 on the losses' device; the arguments are left alone.
    """
    losses = observation.needed("losses").double()
    if sums is None or counts is None:
        sums = losses.new_zeros(len(observation.tasks))
        counts = torch.zeros_like(sums)
    entries = torch.as_tensor(observation.present, device=losses.device)
    sums = sums.to(losses.device).index_add(0, entries, losses)
    return sums, counts.to(losses.device).index_add(0, entries, torch.ones_like(losses))


class EpochBalancer(LossBalancer):
    """A balancer that learns from the mean losses of an epoch, which :meth:`learn` gets when the epoch is over.

    Args:
        steps_per_epoch: length of an epoch in steps; left out, ``mtl.end_epoch()`` (or the balancer's own) says when one is
            over.

    Raises:
        InputError: an epoch has no steps.
    """

    epoch_state: ClassVar = {
        "sums": Maybe(Of(("K",), inf=True), "epoch"),
        "counts": Maybe(Of(("K",), least=0), "epoch"),
        "steps": Whole(),
    }
    """A part of ``stateful``."""
    meanwhile: ClassVar[str]
    """What follows from an epoch that does not end, for the reminder."""

    def __init__(self, steps_per_epoch: int | None) -> None:
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch must be at least 1; got {steps_per_epoch}")
        self.steps_per_epoch = steps_per_epoch
        self.sums: Tensor | None = None
        self.counts: Tensor | None = None
        self.steps = 0

    @abstractmethod
    def learn(self, means: Tensor, counts: Tensor) -> None:
        """Learns from mean losses ``[K]`` of an epoch, NaN for a task that it did not hold, and in how many steps each was."""

    def update(self, observation: Observation) -> None:
        """Adds the losses of a step to the epoch's."""
        self.sums, self.counts = add_losses(self.sums, self.counts, observation)
        self.steps += 1
        if self.steps_per_epoch is not None and self.steps >= self.steps_per_epoch:
            self._turn()
        else:
            remind_of_epochs(self, self.steps, self.meanwhile)

    def end_epoch(self) -> None:
        """Moves on to the next epoch, unless the epochs' length is fixed."""
        if self.steps_per_epoch is None:
            self._turn()

    def _turn(self) -> None:
        if self.sums is not None and self.counts is not None:
            self.learn(self.sums / self.counts, self.counts)
            self.sums, self.counts, self.steps = None, None, 0


class RowsBalancer(GradientBalancer):
    """A balancer that remembers rows as long as the gradients; ``_held`` is what a decision leaves for the update.

    Attributes:
        layout: the parameters that the columns of what it remembers belong to; part of its state.
    """

    decides_purely = True
    layout: Layout | None = None
    _rows_are_tasks = True
    _held: tuple[Any, ...] | None

    def direction(self, gradients: Tensor | ArrayLike) -> Tensor:
        """Direction ``[P]`` from gradients ``[K, P]`` of all tasks; their losses count as 1 where they matter."""
        gradients = as_numbers(gradients, "task gradients", 2)
        direction = self.decide(Observation.of_all(gradients.new_ones(len(gradients)), gradients))
        self._held = None
        return finite_direction(direction)

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; the layout must be that of the rows."""
        sizes = {} if sizes is None else sizes
        read = super().read_state(state, sizes)
        layout = read.get("layout")
        if layout is not None and sum(size for _, size in layout) != sizes.get("P"):
            raise InputError(f"the state of {type(self).__name__} does not fit together: its layout is not that of its rows")
        return read

    def _fitted(self, memory: Tensor | None, observation: Observation) -> Tensor | None:
        """The memory ``[K, P]`` as it is for this step's gradients: their columns, their precision, their device.

        Columns of parameters that were not shared before (a layer that was unfrozen, a task that came later) are 0. The memory
        itself stays as it was; where it fits already, it is what comes back.

        Raises:
            InputError: it is of other tasks or of other shared parameters.
        """
        gradients = observation.needed("gradients")
        if memory is None:
            return None
        if self._rows_are_tasks:
            observation.check_memory(self, memory[:, 0])
        known, now = self.layout, observation.layout
        if known is None or now is None or known == now:
            if memory.shape[1] == gradients.shape[1]:
                return memory.to(gradients)
        else:
            places = _places(known)
            if not places.keys().isdisjoint(now):
                fitted = gradients.new_zeros(len(memory), gradients.shape[1])
                for part, place in _places(now).items():
                    if part in places:
                        fitted[:, place] = memory[:, places[part]]
                return fitted
        raise InputError(
            f"this {type(self).__name__} has learned from gradients of {memory.shape[1]} shared parameters and now meets "
            f"{gradients.shape[1]}; make a new one for another model"
        )


def _places(layout: Layout) -> dict[tuple[str, int], slice]:
    """Where the columns of each parameter are."""
    places, start = {}, 0
    for name, size in layout:
        places[name, size] = slice(start, start + size)
        start += size
    return places


def move_rows(memory: Tensor, present: Sequence[int], keep: float, gradients: Tensor, take: Tensor) -> None:
    """Sets the rows of the tasks present to ``keep`` times themselves plus ``take`` times their gradients, in place.

    Args:
        memory: ``[K, P]``.
        present: positions of k tasks.
        keep: of the old rows.
        gradients: ``[k, P]``.
        take: ``[k]``, of the gradients.
    """
    take = take.to(gradients)
    if len(present) == len(memory):
        memory.mul_(keep).addcmul_(gradients, take[:, None])
        return
    for position, gradient, share in zip(present, gradients, take.unbind(), strict=True):
        memory[position].mul_(keep).addcmul_(gradient, share)


def mixed_row(memory: Tensor | None, keep: float, gradient: Tensor, take: Tensor, out: Tensor) -> Tensor:
    """What :func:`move_rows` would make of one row, written to ``out`` ``[P]``."""
    torch.mul(gradient, take, out=out)
    return out if memory is None else out.add_(memory, alpha=keep)


def place_of(option: str, given: str | int, tasks: tuple[str, ...]) -> int:
    """The place of the task that an option names, by its name or by its place. Raises InputError: there is none."""
    if isinstance(given, str):
        if given not in tasks:
            raise InputError(f'{option} names a task "{given}", which does not exist.{near_misses(given, tasks)}')
        return tasks.index(given)
    if given >= len(tasks):
        raise InputError(f"{option} is task {given}, counted from 0, of {len(tasks)} tasks ({', '.join(tasks)})")
    return given


def remind_of_epochs(balancer: Balancer, steps: int, so: str) -> None:
    """Warns, once, if an epoch goes on for very long: most probably nobody says when one ends.

    Args:
        balancer: that has to be told.
        steps: how many it has seen since it last was.
        so: what follows from that.
    """
    if steps == _PATIENCE:
        warn_once(
            balancer,
            "epochs",
            f"{type(balancer).__name__} has seen {_PATIENCE} steps and no end of an epoch, so {so}: call mtl.end_epoch() (or "
            f"the balancer's own) after each pass over the data, unless a pass is longer than that",
        )
