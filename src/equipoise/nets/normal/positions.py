"""Where on the flow each task sits, and a step size of their own for these positions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from equipoise.errors import InputError, UnknownTaskError, near_misses

__all__ = ["FixedPositions", "LearnedPositions", "Positions", "PositivePositions", "Start", "position_groups"]


def position_groups(model: nn.Module, lr: float, **options: Any) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer: positions with a learning rate η of their own, the rest as usual.

    Algorithm 4 of the thesis has two, μ and η. Positions get no weight decay unless you ask for it: 0 is where the features
    enter the flow, and nothing to shrink to.

    Args:
        model: any module with a :class:`TaskFlow` in it.
        lr: η.
        **options: further options of the positions' group, such as ``betas=(0.9, 0.99)``.

    Returns:
        The group of all other parameters, and, unless positions are fixed, that of the positions.

    Raises:
        InputError: a model without positions, or a learning rate that is not positive.

    Example:
        >>> import torch
        >>> from equipoise.nets import TaskFlow
        >>> flow = TaskFlow.for_vectors(["depth", "label"], 16)
        >>> optimizer = torch.optim.Adam(position_groups(flow, lr=1e-2), lr=1e-3)
        >>> [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
        [(0.001, 9), (0.01, 2)]
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise InputError(f"lr must be a finite step size above 0; got {lr!r}")
    found = [module for module in model.modules() if isinstance(module, Positions)]
    if not found:
        raise InputError("the model has no task positions; it needs a TaskFlow")
    positions = list(dict.fromkeys(parameter for module in found for parameter in module.parameters()))
    own = set(positions)
    groups: list[dict[str, Any]] = [{"params": [parameter for parameter in model.parameters() if parameter not in own]}]
    if positions:
        groups.append({"params": positions, "lr": lr, "weight_decay": 0.0, **options})
    return groups


Start: TypeAlias = float | Mapping[str, float] | Sequence[float]


class Positions(nn.Module, ABC):
    """A position p_i on the flow for every task; in the time units of the differential equation, 0 where the features enter.

    Learned ones are one scalar parameter per task, never one vector: every task's loss would reach a vector, and count as
    shared where each entry is one task's own.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        if isinstance(tasks, str):
            raise InputError(f'tasks must be a sequence of names; got the string "{tasks}"')
        self.tasks = tuple(tasks)
        if not self.tasks:
            raise InputError("there are no tasks; name at least one")
        for task in self.tasks:
            if not isinstance(task, str):
                raise InputError(f"tasks must be named by strings; got {task!r}")
            if self.tasks.count(task) > 1:
                raise InputError(f'the task "{task}" is named twice; names must differ')

    @abstractmethod
    def forward(self, task: str) -> Tensor:
        """The position of a task, a scalar that carries the graph of how it came about."""

    def index(self, task: str) -> int:
        """Place of a task in the order. Raises UnknownTaskError: there is no such task."""
        if task not in self.tasks:
            raise UnknownTaskError(
                f'there is no position for task "{task}".{near_misses(str(task), self.tasks)} Tasks: {", ".join(self.tasks)}'
            )
        return self.tasks.index(task)

    def constants(self) -> dict[str, float] | None:
        """The positions as numbers that a compiled graph may hold; ``None`` where they can change."""
        return None

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """All positions as numbers, for logs and pictures."""
        return {task: float(self(task)) for task in self.tasks}

    def extra_repr(self) -> str:
        """Tasks and positions."""
        return ", ".join(f"{task}={value:.4g}" for task, value in self.values().items())

    def _starts(self, start: Start) -> list[float]:
        """One number per task, checked."""
        if isinstance(start, Mapping):
            unknown = [task for task in start if task not in self.tasks]
            if unknown:
                self.index(unknown[0])
            missing = [task for task in self.tasks if task not in start]
            if missing:
                raise InputError(f'no position is given for task "{missing[0]}"; give one to each of {", ".join(self.tasks)}')
            values = [start[task] for task in self.tasks]
        elif isinstance(start, Sequence) and not isinstance(start, str):
            values = list(start)
            if len(values) != len(self.tasks):
                raise InputError(f"{len(values)} positions are given for {len(self.tasks)} tasks ({', '.join(self.tasks)})")
        else:
            values = [start] * len(self.tasks)
        for task, value in zip(self.tasks, values, strict=True):
            if isinstance(value, bool | str) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f'the position of task "{task}" must be a finite number; got {value!r}')
        return [float(value) for value in values]


class LearnedPositions(Positions):
    """Positions that are learned and may take any value, also below 0 (thesis, section 5.4.2).

    Args:
        tasks: names, in order.
        start: where they start: one number for all, one per task in order, or by name.

    Raises:
        InputError: names or numbers that cannot be used.

    Example:
        >>> positions = LearnedPositions(["depth", "label"], start={"depth": 1.0, "label": -0.5})
        >>> positions.values()
        {'depth': 1.0, 'label': -0.5}
        >>> [tuple(parameter.shape) for parameter in positions.parameters()]
        [(), ()]
    """

    def __init__(self, tasks: Sequence[str], start: Start = 1.0) -> None:
        super().__init__(tasks)
        self.learned = nn.ParameterList([nn.Parameter(torch.tensor(value)) for value in self._starts(start)])

    def forward(self, task: str) -> Tensor:
        """The position."""
        position: Tensor = self.learned[self.index(task)]
        return position


class PositivePositions(Positions):
    """Positions p_i = exp(v_i) with v_i learned, so above 0 (Table 5.4, "different form of p_i").

    Args:
        tasks: names, in order.
        start: where the positions p (not v) start, above 0: one number for all, one per task in order, or by name.

    Raises:
        InputError: names or numbers that cannot be used.

    Example:
        >>> PositivePositions(["depth", "label"], start=1.0)("depth")
        tensor(1., grad_fn=<ExpBackward0>)
    """

    def __init__(self, tasks: Sequence[str], start: Start = 1.0) -> None:
        super().__init__(tasks)
        starts = self._starts(start)
        for task, value in zip(self.tasks, starts, strict=True):
            if value <= 0:
                raise InputError(f'the position of task "{task}" must start above 0 to stay there; got {value:g}')
        self.learned = nn.ParameterList([nn.Parameter(torch.tensor(math.log(value))) for value in starts])

    def forward(self, task: str) -> Tensor:
        """The position, exp(v)."""
        return torch.exp(self.learned[self.index(task)])


class FixedPositions(Positions):
    """Positions that stay where they are, equal or different (Table 5.4, "constant").

    Args:
        tasks: names, in order.
        values: one number for all, one per task in order, or by name.

    Raises:
        InputError: names or numbers that cannot be used.

    Example:
        >>> FixedPositions(["depth", "label"], [1.0, 1.25]).values()
        {'depth': 1.0, 'label': 1.25}
    """

    fixed: Tensor

    def __init__(self, tasks: Sequence[str], values: Start = 1.0) -> None:
        super().__init__(tasks)
        self.register_buffer("fixed", torch.tensor(self._starts(values)))
        self._read()

    def constants(self) -> dict[str, float]:
        """The positions."""
        return dict(zip(self.tasks, self._numbers, strict=True))

    def _read(self) -> None:
        # As the buffer holds them: what a compiled graph takes and what is read eagerly round alike.
        if not self.fixed.is_meta:
            self._numbers: list[float] = self.fixed.tolist()

    def _apply(self, fn: Any, recurse: bool = True) -> FixedPositions:
        super()._apply(fn, recurse)
        self._read()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._read()

    def forward(self, task: str) -> Tensor:
        """The position."""
        return self.fixed[self.index(task)]
