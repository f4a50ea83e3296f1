"""Gradient steps on the lower level, beside the variables and without a graph, and the batches that they work through."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.errors import InputError, NonFiniteError

__all__ = ["check_answer", "check_lower", "descend", "endless", "lower_gradients", "take"]


def take(batches: Iterable[Any] | None, count: int) -> list[Any]:
    """The next ``count`` batches; of an iterator they are used up, a list starts again each time, ``None`` stands for no data.

    Raises:
        InputError: there are not so many, or it cannot be iterated over.
    """
    if batches is None:
        return [None] * count
    try:
        source = iter(batches)
    except TypeError:
        raise InputError(
            f"lower_batches must be an iterable of batches, one per lower step; got {type(batches).__name__}. "
            f"Pass itertools.repeat(batch) to use one batch in every step"
        ) from None
    taken = []
    for batch in source:
        taken.append(batch)
        if len(taken) == count:
            return taken
    raise InputError(
        f"lower_batches ended after {len(taken)} of the {count} batches that a step takes; pass an endless iterator, such as "
        f"equipoise.bilevel.endless(loader), or itertools.repeat(batch)"
    )


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Goes through a loader again and again; epochs follow each other in the loader's own order.

    Args:
        loader: anything that can be iterated over many times.

    Raises:
        InputError: the loader is an iterator, which ends for good, or a pass over it gave no batch.

    Example:
        >>> batches = endless([1, 2])
        >>> [next(batches) for _ in range(5)]
        [1, 2, 1, 2, 1]
    """
    if isinstance(loader, Iterator):
        raise InputError("endless() needs a loader that can be iterated over again; this is an iterator, which ends for good")
    return _endless(loader)


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise InputError("the loader of lower-level batches is empty")


def descend(
    problem: BilevelProblem,
    start: Point,
    batches: Sequence[Any],
    lr: float,
    *,
    decay: float = 0.0,
    careful: bool = False,
    first: tuple[Tensor, Sequence[Tensor | None]] | None = None,
    step: int,
) -> Point:
    """ω̃^{t+1} = ω̃^t − η (∇_ω f(α, ω̃^t) + decay ω̃^t), one step per batch (thesis, eq. 3.15).

    Args:
        problem: whose lower level is solved.
        start: α and ω̃^0; stays as it is.
        batches: T of them.
        lr: η.
        decay: of the variables.
        careful: take a step back that led to a larger f than that of ω̃^0, or to none, and halve η for the steps that are left.
            The T batches must be one and the same, or f would not be comparable. Costs one more evaluation of f.
        first: f and ∇_ω f at ω̃^0 on the first batch, if they are known.
        step: index of the outer step, for error messages.

    Returns:
        α and ω̃^T, without gradients to anything.

    Raises:
        InputError: the lower level has no gradient with respect to ω.
        NonFiniteError: it left the finite numbers.
    """
    upper = [value.detach() for value in start.upper]
    lower = [value.detach().clone().requires_grad_() for value in start.lower]
    point = Point(upper, lower, start.buffers)
    values: list[Tensor] = []
    kept: list[Tensor] = []
    gradients: Sequence[Tensor | None]
    for position, batch in enumerate(batches):
        known = first if position == 0 else None
        value = problem.lower_at(point, batch) if known is None else known[0]
        if careful and values and not bool(value <= values[0]):
            lr *= 0.5
            with torch.no_grad():
                torch._foreach_copy_(lower, kept)
        else:
            gradients = lower_gradients(problem, value, lower) if known is None else known[1]
            values.append(value.detach())
            kept = [tensor.detach().clone() for tensor in lower] if careful else []
        with torch.no_grad():
            if decay:
                torch._foreach_mul_(lower, 1.0 - lr * decay)
            moved = [tensor for tensor, gradient in zip(lower, gradients, strict=True) if gradient is not None]
            torch._foreach_add_(moved, [gradient for gradient in gradients if gradient is not None], alpha=-lr)
        torch.clear_autocast_cache()  # a caller's autocast keeps casts of what has just moved
    check_lower(values, step)
    if careful:
        # Gradients are on: the function may itself differentiate.
        if not bool(problem.lower_at(point, batches[-1]).detach() <= values[0]):
            with torch.no_grad():
                torch._foreach_copy_(lower, kept)
        torch.clear_autocast_cache()
    return Point(upper, [tensor.detach() for tensor in lower], start.buffers)


def lower_gradients(
    problem: BilevelProblem, value: Tensor, lower: Sequence[Tensor], *, create_graph: bool = False
) -> list[Tensor | None]:
    """∇_ω f, one entry per variable; ``None`` for variables that f does not depend on.

    Raises:
        InputError: f depends on none of them.
    """
    found: Sequence[Tensor | None] = ()
    if value.requires_grad:
        found = torch.autograd.grad(value, lower, create_graph=create_graph, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise InputError(
            "lower(α, ω, batch) has no gradient with respect to the lower-level variables "
            f"({', '.join(problem.lower_variables.names[:3])}{' …' if len(problem.lower_variables) > 3 else ''}): it does not "
            "use them, or was detached or computed under torch.no_grad()"
        )
    return list(found)


def check_answer(lower: Sequence[Tensor], names: Sequence[str], steps: int, step: int) -> None:
    """Raises if ω_T is not finite, which the values of f on the way need not show: no value is taken at ω_T."""
    fine = torch.stack([torch.isfinite(value).all() for value in lower]).tolist()
    for name, well in zip(names, fine, strict=True):
        if not well:
            raise NonFiniteError(
                f'the lower level\'s variable "{name}" is not finite after its {steps} steps, in step {step}: its gradient was '
                f"not, or lower_lr is too large. The step was not taken and nothing has changed",
                tasks=("lower",),
                step=step,
                what="gradient",
            )


def check_lower(values: Sequence[Tensor], step: int, where: str = "") -> None:
    """Raises if one of the lower level's values, one per lower step, is not finite."""
    numbers = torch.stack([value.double() for value in values]).tolist()
    for position, number in enumerate(numbers):
        if not math.isfinite(number):
            raise NonFiniteError(
                f"the lower level is not finite {where or f'in its step {position + 1} of {len(numbers)}'} (it is {number}), "
                f"in step {step}; "
                f"a smaller lower_lr may help. The step was not taken and nothing has changed",
                tasks=("lower",),
                step=step,
                what="loss",
            )
