"""Groups of tasks that take turns: which tasks a step, or an update within it, leaves to the balancer."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError, UnknownMethodError, near_misses, refuse_unknown_options
from equipoise.method import Nested, as_teleport, seeded, settled
from equipoise.options import checked, kinds_of
from equipoise.solvers import affinity_propagation, color_greedily
from equipoise.states import Form, Generator, Maybe, Of, Whole, read_state
from equipoise.step.report import StepReport

if TYPE_CHECKING:
    from equipoise.optimizer import GroupedStep

__all__ = ["GROUPS", "AffinityGroups", "ConflictGroups", "TaskGroups", "as_groups"]


class TaskGroups(ABC):
    """A schedule of groups of tasks; composes with any balancer, which sees the active tasks as if a batch held no others.

    Parameters that belong to inactive tasks alone have no gradient, and the optimizer leaves them alone.

    Attributes:
        steps: taken so far.
        active: the groups as they are now, by positions of the tasks; empty while all tasks train together.
    """

    name: ClassVar[str]
    _forms: ClassVar[Mapping[str, Form]]

    def __init__(self) -> None:
        self.steps = 0
        self._members: Tensor | None = None  # [groups, K]

    @property
    def active(self) -> list[list[int]]:
        """The groups as they are now."""
        return [] if self._members is None else [row.nonzero().flatten().tolist() for row in self._members]

    @abstractmethod
    def take(self, step: GroupedStep) -> StepReport:
        """Takes one step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it continues."""
        held = {name: getattr(self, f"_{name}") for name in ("members", *self._forms)}
        return {"steps": self.steps, **{name: _saved(value) for name, value in held.items()}}

    def read_state(self, state: Any, sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """A state as it is loaded; changes nothing. Raises InputError: it is none of such groups, or of other tasks."""
        kinds: dict[str, Form] = {"steps": Whole(), "members": Maybe(Of(("groups", "K"), torch.bool, cpu=True))}
        return read_state(self.name, state, kinds | dict(self._forms), sizes)

    def load_state_dict(self, state: Any) -> None:
        """Continues from a saved state. Raises InputError: see :meth:`read_state`."""
        read = self.read_state(state)
        self.steps = read.pop("steps")
        for name, value in read.items():
            own = getattr(self, f"_{name}")
            if isinstance(own, torch.Generator):
                own.set_state(value)
            else:
                setattr(self, f"_{name}", _saved(value))

    def __repr__(self) -> str:
        options = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "steps"}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"

    def _set(self, groups: Sequence[Sequence[int]], tasks: int) -> None:
        self._members = torch.zeros(len(groups), tasks, dtype=torch.bool, device="cpu")
        for row, group in zip(self._members, groups, strict=True):
            row[list(group)] = True


class ConflictGroups(TaskGroups):
    """SON-GOKU (Patapati and Srinivasan, 2025, arXiv 2509.16959): one group of tasks that do not conflict per step, in turn.

    Every ``refresh`` steps the cosines c_ij of the task gradients are looked at. Tasks with -c_ij > τ conflict; greedy coloring
    (Welsh and Powell) of the graph of conflicts gives the groups, one of which is active per step. Until the first look all
    tasks are. τ falls from 1 to ``threshold`` in a geometric series over ``anneal`` steps.

    The paper's text could not be had beyond its introduction; this follows the released code but for the source of the cosines.
    There each task's gradient is averaged over the steps in which it is active, which takes K·P numbers. Here the Gramian of
    one batch serves, that of the proxy if there is one and else K backward passes, and cosines are averaged over the looks.

    Where the batches hold no task of the group whose turn it is, the turn goes on, at the price of one evaluation.

    Args:
        threshold: τ, from 0 to 1.
        refresh: R, steps between two looks.
        momentum: share of the earlier looks in the average, from 0 to below 1.
        anneal: steps; 0 for ``threshold`` at once.
        coverage: to how many groups each task belongs, where it conflicts with none in them.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> import equipoise as eq
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> def losses(model, x):
        ...     near, far = model(x).mean(0)
        ...     return {"up": near + far, "down": -near - far, "left": near}
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, "conflict-groups(refresh=1)+fairgrad")
        >>> for _ in range(4):
        ...     _ = mtl.step(torch.ones(1, 1))
        ...     print(*mtl.last.tasks)
        up down left
        down
        up left
        down
    """

    name = "conflict-groups"
    _forms: ClassVar[Mapping[str, Form]] = {
        "place": Whole(),
        "cosines": Maybe(Of(("K", "K"), cpu=True), "looks"),
        "seen": Maybe(Of(("K", "K"), torch.bool, cpu=True), "looks"),
    }

    def __init__(
        self, *, threshold: float = 0.25, refresh: int = 32, momentum: float = 0.5, anneal: int = 0, coverage: int = 1
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or refresh < 1 or not 0 <= momentum < 1 or anneal < 0 or coverage < 1:
            raise InputError(
                "conflict-groups takes a threshold from 0 to 1, refresh and coverage from 1 on, momentum from 0 to below 1 and "
                f"anneal from 0 on; got {threshold}, {refresh}, {coverage}, {momentum} and {anneal}"
            )
        self.threshold, self.refresh, self.momentum = threshold, refresh, momentum
        self.anneal, self.coverage = anneal, coverage
        self._place = 0
        self._cosines: Tensor | None = None
        self._seen: Tensor | None = None

    def take(self, step: GroupedStep) -> StepReport:
        """Looks for conflicts if that is due, and updates the tasks of one group."""
        before = self.state_dict()
        try:
            if self.steps and self.steps % self.refresh == 0 and step.tasks:
                self._look(*step.gramian(), len(step.tasks))
            groups: list[list[int] | None] = [*self.active] or [None]
            for turn in range(len(groups)):
                report = step.update(groups[(self._place + turn) % len(groups)])
                if report.tasks or step.empty:
                    break
            if not report.skipped:
                self._place = (self._place + turn + 1) % len(groups)
                self.steps += 1
                return report
        except BaseException:
            self.load_state_dict(before)
            raise
        self.load_state_dict(before)
        return report

    def _look(self, gramian: Tensor, present: Sequence[int], tasks: int) -> None:
        if self._cosines is None or self._seen is None:
            self._cosines = torch.zeros(tasks, tasks, dtype=torch.float64, device="cpu")
            self._seen = torch.zeros(tasks, tasks, dtype=torch.bool, device="cpu")
        norms = gramian.diagonal().clamp(min=0).sqrt()
        inverse = torch.where(norms > 0, 1 / norms, 0.0)
        found = (gramian * inverse[:, None] * inverse).clamp(-1, 1)
        index = torch.tensor(list(present), device="cpu")
        block = (index[:, None], index)
        known = self._seen[block]
        self._cosines[block] = torch.where(known, torch.lerp(found, self._cosines[block], self.momentum), found)
        self._seen[block] = True
        done = min(1.0, self.steps / self.anneal) if self.anneal else 1.0
        conflicts = -self._cosines.numpy() > self.threshold**done
        before, groups = self.active, color_greedily(conflicts, self.coverage)
        if groups != before:
            self._set(groups, tasks)
            self._place %= len(groups)


class AffinityGroups(TaskGroups):
    """Selective task group updates (Jeong and Yoon, ICLR 2025, arXiv 2502.11986): all groups in each step, one after the other.

    A step updates group after group, in random order and on the same batch. What the update of group G made of the losses is
    kept as the proximal affinity of its tasks s to each task t, with decay β:

        A_st ← (1 - β) A_st + β b_t / |G|,   b_t = 1 - L_t(after) / L_t(before);

    within G, b_t counts for t = s only if it is not negative; where b_s and b_t differ in sign, -max(b_s, b_t) stands for it.
    Groups are the clusters of (Â + Âᵀ)/2, Â_st = A_st / A_tt, by affinity propagation; in the first steps each task is one.

    The paper's text could not be had beyond its introduction; this follows the released code, except that it credits a change
    of the losses to the group whose update made it, where the code credits the group that is updated next, and that a single
    group is updated once, not twice. A step takes one evaluation and one backward pass per group, and one evaluation more per
    group for the losses after it; a copy of the training state is kept so that a step that fails leaves none of its updates.
    Losses with fixed weights are a part of every update.

    Args:
        decay: β, above 0 and at most 1.
        warm_up: steps with one task per group.
        preference: of affinity propagation, the higher the more groups; the median affinity if left out.
        seed: of the order.

    Raises:
        InputError: an argument out of its range.
    """

    name = "affinity-groups"
    _forms: ClassVar[Mapping[str, Form]] = {"affinity": Maybe(Of(("K", "K"), cpu=True)), "generator": Generator()}

    def __init__(self, *, decay: float = 0.001, warm_up: int = 100, preference: float | None = None, seed: int = 0) -> None:
        super().__init__()
        if not 0 < decay <= 1 or warm_up < 0:
            raise InputError(f"affinity-groups takes a decay in (0, 1] and warm_up from 0 on; got {decay} and {warm_up}")
        self.decay, self.warm_up, self.preference = decay, warm_up, preference
        self._affinity: Tensor | None = None
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def take(self, step: GroupedStep) -> StepReport:
        """Updates all groups, and learns what each update made of the losses."""
        before = self.state_dict()
        try:
            if not step.tasks:  # the first losses say what the tasks are
                report = step.update(None)
                self.steps += bool(report.tasks)
                return report
            return self._updates(step, len(step.tasks))
        except BaseException:
            self.load_state_dict(before)
            raise

    def _updates(self, step: GroupedStep, tasks: int) -> StepReport:
        if self._affinity is None:
            self._affinity = torch.zeros(tasks, tasks, dtype=torch.float64, device="cpu")
            self._set([[task] for task in range(tasks)], tasks)
        if self.steps >= self.warm_up:
            self._regroup(self._affinity.numpy(), tasks)
        groups = self.active
        reports = []
        with step.whole():
            here = step.losses()
            for place in torch.randperm(len(groups), generator=self._generator, device="cpu").tolist():
                group = [task for task in groups[place] if task in here]
                if not group and here:
                    continue
                report = step.update(group or None)
                if not report.tasks:
                    return report
                reports.append(report)
                if not report.skipped:
                    there = step.losses()
                    self._learn(group, here, there)
                    here = there
        self.steps += 1
        return _merged(reports, step.tasks)

    def _learn(self, group: Sequence[int], before: Mapping[int, float], after: Mapping[int, float]) -> None:
        assert self._affinity is not None
        gains = {t: (1 - after[t] / before[t]) / len(group) for t in after if before.get(t, 0.0) > 0}
        gains = {t: gain for t, gain in gains.items() if math.isfinite(gain)}  # the next update says what is wrong
        for source in group:
            for task, gain in gains.items():
                if task == source and gain < 0:
                    continue
                if task in group and task != source:
                    own = gains.get(source)
                    if own is None:
                        continue
                    gain = gain if gain * own >= 0 else -max(gain, own)
                self._affinity[source, task] += self.decay * (gain - self._affinity[source, task])

    def _regroup(self, affinity: np.ndarray[Any, Any], tasks: int) -> None:
        own = affinity.diagonal()
        if (own > 0).all() and np.isfinite(affinity).all():
            scaled = affinity / own
            groups = affinity_propagation((scaled + scaled.T) / 2, self.preference)
            if groups is not None:
                self._set(groups, tasks)


GROUPS: Mapping[str, Callable[..., TaskGroups]] = {"conflict-groups": ConflictGroups, "affinity-groups": AffinityGroups}
"""Schedules by the name that stands before the ``+`` of a method."""


def as_groups(given: TaskGroups | Nested | str | None, seed: int | None = None) -> TaskGroups | None:
    """A schedule, or what it is made from: ``"conflict-groups(threshold=0.5)"``.

    Args:
        given: the schedule, its name with options, or ``None``.
        seed: for one whose text does not set it.

    Raises:
        InputError: it cannot be made from that; near misses are suggested.
    """
    if given is None or isinstance(given, TaskGroups):
        return given
    if isinstance(given, str):
        given = as_teleport(given)
    if not isinstance(given, Nested):
        raise InputError(f'groups must be a schedule such as "conflict-groups"; got {given!r}')
    make = GROUPS.get(given.name)
    if make is None:
        raise UnknownMethodError(f'there are no groups "{given.name}".{near_misses(given.name, GROUPS)}')
    refuse_unknown_options(given.name, given.options, inspect.signature(make).parameters, "groups")
    options = seeded(settled(given.options), kinds_of(make), seed)
    return make(**checked(kinds_of(make), options, f'groups "{given.name}"'))


def _saved(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.clone() if isinstance(value, Tensor) else value


def _merged(reports: Sequence[StepReport], names: Sequence[str]) -> StepReport:
    """The updates of a step as one report: each task as it was in its own update; no Gramian is of all of them."""
    if len(reports) == 1:
        return reports[0]
    rows = {task: (report, place) for report in reports for place, task in enumerate(report.tasks)}
    tasks = tuple(name for name in names if name in rows)
    weights = None
    if all(report.weights is not None for report in reports):
        found = [(report.weights, place) for report, place in map(rows.__getitem__, tasks)]
        weights = torch.stack([own[place].cpu().double() for own, place in found if own is not None])
    losses = torch.stack([report.losses[place] for report, place in map(rows.__getitem__, tasks)])
    skipped = all(report.skipped for report in reports)
    return replace(reports[-1], tasks=tasks, losses=losses, weights=weights, gramian=None, rows=None, skipped=skipped)
