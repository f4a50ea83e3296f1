"""Gradient steps on the lower level, beside the variables and without a graph, and the batches that they work through."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equipoise.bilevel.levels import Levels, Parts, check_reached
from equipoise.bilevel.problem import Point
from equipoise.bilevel.rules import Averages, Descent, LowerRule
from equipoise.errors import InputError, NonFiniteError

__all__ = ["Solved", "check_answer", "check_lower", "check_upper", "descend", "endless", "take"]


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


class Solved(NamedTuple):
    """Where lower steps have led.

    Attributes:
        point: α and ω̃^T, without gradients to anything.
        values: f on the way, at ω̃^0 to ω̃^(T−1), each on its step's batch.
        memory: of the rule.
        answer: f at ω̃^T with a graph to the α that was asked for; ``None`` where it was not evaluated.
    """

    point: Point
    values: list[Tensor]
    memory: Averages
    answer: Tensor | None = None


def descend(
    levels: Levels,
    start: Point,
    batches: Sequence[Parts],
    rule: LowerRule,
    *,
    memory: Averages | None = None,
    decay: float = 0.0,
    careful: bool = False,
    first: tuple[Tensor, Sequence[Tensor | None]] | None = None,
    asked: list[Tensor] | None = None,
    step: int,
) -> Solved:
    """ω̃^{t+1} = ω̃^t − η (∇_ω f(α, ω̃^t) + decay ω̃^t), or another rule's step, one per batch (thesis, eq. 3.15).

    Args:
        levels: whose lower level is solved.
        start: α and ω̃^0; stays as it is.
        batches: T of them, each of one micro-batch or several.
        rule: what a step makes of a gradient.
        memory: of the rule; fresh if left out.
        decay: of the variables.
        careful: take a step back that led to a larger f than that of ω̃^0, or to none, and halve η for the steps that are left.
            The T batches must be one and the same, or f would not be comparable. Costs one more evaluation of f.
        first: f and ∇_ω f at ω̃^0 on the first batch, if they are known.
        asked: α as leaves, to which the evaluation at ω̃^T that ``careful`` makes is to have a graph.
        step: index of the outer step, for error messages.

    Raises:
        InputError: the lower level has no gradient with respect to ω.
        NonFiniteError: it left the finite numbers.
    """
    upper = [value.detach() for value in start.upper]
    lower = [value.detach().requires_grad_() for value in start.lower]
    memory = rule.fresh(len(lower)) if memory is None else memory
    values: list[Tensor] = []
    kept = lower, memory
    gradients: Sequence[Tensor | None]
    answer: Tensor | None = None
    shrunk = 1.0
    for position, parts in enumerate(batches):
        point = Point(upper, lower, start.buffers)
        known = first if position == 0 else None
        value, found = levels.lower(point, parts, lower) if known is None else known
        if careful and values and not bool(value <= values[0]):
            shrunk *= 0.5
            lower, memory = kept
        else:
            gradients = check_reached(levels.problem, found)
            values.append(value)
            kept = lower, memory
        with torch.no_grad():
            lower, memory = _moved(rule, lower, gradients, memory, position, shrunk, decay)
        torch.clear_autocast_cache()  # a caller's autocast keeps casts of what has just moved
    check_lower(values, step)
    if careful:
        # Gradients are on: the function may itself differentiate.
        point = Point(upper if asked is None else asked, lower, start.buffers)
        ends = [levels.problem.lower_at(point, part) for part in batches[-1]]
        if bool(levels.mean([value.detach() for value in ends]) <= values[0]):
            answer = ends[0] if asked is not None else None
        else:
            lower, memory = kept
        torch.clear_autocast_cache()
    return Solved(Point(upper, [tensor.detach() for tensor in lower], start.buffers), values, memory, answer)


def _moved(
    rule: LowerRule,
    lower: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    memory: Averages,
    index: int,
    shrunk: float,
    decay: float,
) -> tuple[list[Tensor], Averages]:
    """ω after one step, as leaves that require gradients."""
    if not isinstance(rule, Descent) or not rule.linear:
        if decay:
            gradients = [None if g is None else g + decay * value for g, value in zip(gradients, lower, strict=True)]
        moved, memory = rule.step(lower, gradients, memory, index)
        if shrunk < 1.0:  # by the change, for no other measure of a step is common to all rules
            moved = [value + shrunk * (new - value) for value, new in zip(lower, moved, strict=True)]
        return [value.detach().requires_grad_() for value in moved], memory
    lr = rule.lr * rule.factor(index) * shrunk
    moved = list(torch._foreach_mul(list(lower), 1.0 - lr * decay)) if decay else list(lower)
    having = [place for place, gradient in enumerate(gradients) if gradient is not None]
    sums = torch._foreach_add([moved[p] for p in having], [gradients[p] for p in having], alpha=-lr)  # type: ignore[misc]
    for place, new in zip(having, sums, strict=True):
        moved[place] = new
    return [value.detach().requires_grad_() for value in moved], memory


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


def check_upper(values: Tensor, names: Sequence[str], step: int) -> Tensor:
    """The upper objectives' values ``[m]``. Raises NonFiniteError: one of them is not finite; names it."""
    for name, number in zip(names, values.tolist(), strict=True):
        if not math.isfinite(number):
            raise NonFiniteError(
                f'the upper level\'s objective "{name}" is not finite in step {step} (it is {number}); '
                f"the step was not taken and nothing has changed",
                tasks=(name,),
                step=step,
                what="loss",
            )
    return values
