"""The tasks of a problem: their names, their fixed order, and what counts as their losses.

Whatever form a user's losses have (a mapping, a sequence, a one-dimensional tensor; tensors or callables that give one), it
becomes a plain ``dict`` here, once, so that nothing further down has to ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from equipoise.errors import InputError, UnknownTaskError, near_misses

__all__ = ["LazyLoss", "Loss", "Losses", "Tasks", "as_losses", "by_graph", "read_fixed", "scalar"]

LazyLoss: TypeAlias = Callable[[], Tensor]
Loss: TypeAlias = Tensor | LazyLoss
Losses: TypeAlias = Mapping[str, Loss] | Sequence[Loss] | Tensor


def as_losses(losses: Losses, names: Sequence[str] | None = None, *, some: bool = True) -> dict[str, Loss]:
    """Gives every loss the name of its task.

    Args:
        losses: mapping task → scalar tensor or zero-argument callable, or a sequence of these, or a tensor ``[K]``.
        names: names for the entries of a sequence or tensor; ``task0``, ``task1`` … when left out.
        some: whether there has to be one; a mapping of a batch without any label is empty.

    Returns:
        A dictionary in the order given.

    Raises:
        InputError: no losses at all, something that is no loss, or more or fewer names than losses.

    Example:
        >>> import torch
        >>> list(as_losses(torch.ones(2)))
        ['task0', 'task1']
    """
    if isinstance(losses, Mapping):
        named = {str(name): loss for name, loss in losses.items()}
    else:
        if isinstance(losses, Tensor):
            if losses.dim() == 0:
                raise InputError("one scalar was given as the losses; give each task's own, {name: loss, …}, and not their sum")
            if losses.dim() != 1:
                raise InputError(
                    f"losses given as one tensor must have the shape [K], one entry per task; this one has the shape "
                    f"{list(losses.shape)}. Reduce each task's loss to a scalar first"
                )
            entries: Sequence[Loss] = losses.unbind()
        elif isinstance(losses, Sequence) and not isinstance(losses, str):
            entries = losses
        else:
            raise InputError(
                f"losses must be a mapping task → scalar tensor, a sequence of scalars or a tensor [K]; "
                f"got {type(losses).__name__}"
            )
        if names is not None and len(names) != len(entries):
            raise InputError(
                f"{len(entries)} losses without names for {len(names)} declared tasks ({', '.join(names)}); "
                f"return a mapping task → loss when a batch holds only some of the tasks"
            )
        named = dict(zip(names or [f"task{k}" for k in range(len(entries))], entries, strict=True))
    if not named and (some or not isinstance(losses, Mapping)):
        raise InputError("no losses were given; expected at least one task")
    for name, loss in named.items():
        if not isinstance(loss, Tensor) and not callable(loss):
            raise InputError(
                f'the loss of task "{name}" must be a scalar tensor or a callable that returns one; got {type(loss).__name__}'
            )
    return named


def by_graph(losses: Mapping[int, Loss]) -> list[list[int]]:
    """Positions of the losses that may share one graph, and then of each callable, whose graph is yet to be made, alone."""
    eager = [position for position, loss in losses.items() if isinstance(loss, Tensor)]
    return ([eager] if eager else []) + [[position] for position, loss in losses.items() if not isinstance(loss, Tensor)]


def scalar(name: str, loss: Loss, *, differentiable: bool = True) -> Tensor:
    """Evaluates a loss if need be and checks that it can be differentiated.

    Args:
        name: the task, for the error message.
        loss: a tensor, or a callable that returns one.
        differentiable: whether the loss has to carry a graph.

    Returns:
        The loss as a tensor without dimensions.

    Raises:
        InputError: not a tensor, not a scalar, not floating point, or without a graph.
    """
    value = loss if isinstance(loss, Tensor) else loss()
    if not isinstance(value, Tensor):
        raise InputError(f'the loss of task "{name}" must be a scalar tensor; its callable gave {type(value).__name__}')
    if value.numel() != 1:
        raise InputError(
            f'the loss of task "{name}" must be a scalar; it has the shape {list(value.shape)}. Take its mean or sum'
        )
    if not value.is_floating_point():
        raise InputError(f'the loss of task "{name}" must be a real floating-point tensor; it is {value.dtype}')
    if differentiable and not value.requires_grad:
        raise InputError(
            f'the loss of task "{name}" does not require grad: no parameter reaches it, or it was detached '
            f"or computed under torch.no_grad()"
        )
    return value if value.dim() == 0 else value.reshape(())


class Tasks:
    """The tasks in their fixed order; declared, or learned from the first losses.

    Args:
        names: the tasks, in order; ``None`` to take them from the first step.

    Raises:
        InputError: a name occurs twice, or there are none.

    Example:
        >>> tasks = Tasks(["depth", "normals"])
        >>> tasks.positions(["normals"])
        [1]
    """

    def __init__(self, names: Iterable[str] | None = None) -> None:
        self._names: tuple[str, ...] = ()
        self._positions: dict[str, int] = {}
        if names is not None:
            self.fix(names)

    def fix(self, names: Iterable[str]) -> None:
        """Fixes the tasks and their order."""
        if isinstance(names, str):
            raise InputError(f'tasks must be a sequence of names; got the single string "{names}"')
        fixed = tuple(str(name) for name in names)
        if not fixed:
            raise InputError("tasks must name at least one task; got none")
        if len(set(fixed)) != len(fixed):
            raise InputError(f"each task may be named once only; got {', '.join(fixed)}")
        self._names = fixed
        self._positions = {name: position for position, name in enumerate(fixed)}

    def check_declared(self, names: Sequence[str] | None) -> None:
        """Refuses to let a balancer go on with other tasks than those it knows.

        Raises:
            InputError: the names declared now are others.
        """
        if names is not None and self.known and self.names != tuple(names):
            raise InputError(
                f"this balancer's tasks are {', '.join(self.names)}, not {', '.join(names)}; make a new balancer for another "
                f"problem"
            )

    def forget(self) -> None:
        """Makes the tasks unknown again, where the step that fixed them turned out to be none."""
        self._names, self._positions = (), {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order; empty until they are known."""
        return self._names

    @property
    def known(self) -> bool:
        """Whether the tasks are fixed already."""
        return bool(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def positions(self, present: Iterable[str]) -> list[int]:
        """Positions of the tasks present, in the order given.

        Raises:
            UnknownTaskError: a task that was neither declared nor seen in the first step.
        """
        try:
            return [self._positions[name] for name in present]
        except KeyError as error:
            name = str(error.args[0])
            raise UnknownTaskError(
                f'task "{name}" is unknown; the tasks are fixed as {", ".join(self._names)}.'
                f"{near_misses(name, self._names)} A task that is missing from the first batch has to be declared: tasks=[…]"
            ) from None


def read_fixed(fixed: Mapping[str, float] | None, tasks: tuple[str, ...] = ()) -> dict[str, float]:
    """Weights of losses that are not balanced, checked.

    Raises:
        InputError: no mapping from names to finite numbers, or the name of a task.
    """
    if fixed is None:
        return {}
    if not isinstance(fixed, Mapping):
        raise InputError(f'fixed must be a mapping from the names of losses to their weights, {{"kl": 0.1}}; got {fixed!r}')
    for name, weight in fixed.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
        if not isinstance(name, str) or not number:
            raise InputError(f'fixed must give every loss a finite weight; got {weight!r} for "{name}"')
        if name in tasks:
            raise InputError(f'"{name}" is one of the tasks, so it cannot have a fixed weight beside them; leave it out of one')
    return {str(name): float(weight) for name, weight in fixed.items()}
