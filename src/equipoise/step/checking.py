"""Finding losses and gradients that are infinite or not a number, and whom to blame for them, before anything has changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors
from torch.nn.utils import get_total_norm

from equipoise.engine.sparse import stored
from equipoise.errors import NonFiniteError, warn_once
from equipoise.step.context import Context, Turn
from equipoise.step.source import Source

__all__ = [
    "check_gradients",
    "check_losses",
    "check_rows",
    "looks_early",
    "nonfinite_gradients",
    "raise_nonfinite",
    "warn_of_nothing_shared",
    "warn_of_zeros",
    "which_finite",
]


def raise_nonfinite(what: str, tasks: Sequence[str], step: int, detail: str = "") -> None:
    """Raises :class:`~equipoise.NonFiniteError`, naming the tasks and the step."""
    named = ", ".join(f'"{task}"' for task in tasks)
    raise NonFiniteError(
        f"the {what} of task {named} is not finite in step {step}{detail}; the step was not taken and nothing has changed",
        tasks=tuple(tasks),
        step=step,
        what=what,
    )


def which_finite(values: Tensor) -> list[bool]:
    """For each of a few numbers whether it is finite.

    On the CPU a list of Python numbers is looked through faster than two more tensors are made.
    """
    return [math.isfinite(value) for value in values.tolist()]


def looks_early(context: Context) -> bool:
    """Whether this process may raise on its own losses, before the first backward pass.

    A process that leaves the step alone lets the others wait for it; and on a GPU, callers should leave it, for the host would
    have to wait. In both cases the losses are looked at together with the gradients.
    """
    return context.check_finite and context.processes.count == 1


def check_losses(losses: Tensor, tasks: Sequence[str], step: int) -> None:
    """Raises if one of the losses ``[k]`` of these tasks is not finite."""
    finite = which_finite(losses)
    if not all(finite):
        bad = [task for task, fine in zip(tasks, finite, strict=True) if not fine]
        values = [value for value, fine in zip(losses.tolist(), finite, strict=True) if not fine]
        raise_nonfinite("loss", bad, step, f" (it is {', '.join(map(str, values))})")


def check_rows(turn: Turn, squares: Tensor, means: Tensor, names: Sequence[str]) -> bool:
    """Whether a gradient scaler's overflow is in the rows; without a scaler, what is not finite raises.

    Args:
        turn: the step.
        squares: one number per task ``[k]`` that is finite if its gradient is.
        means: losses ``[k]``.
        names: of these tasks.
    """
    finite = which_finite(squares)
    if all(finite):
        return False
    # A loss that is not finite is the cause, and the better thing to name.
    check_losses(means, names, turn.step)
    if not turn.scaled:
        bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
        raise_nonfinite("gradient", bad, turn.step)
    return True


def warn_of_zeros(context: Context, squares: Tensor) -> None:
    """Says once that all task gradients vanish.

    Args:
        context: of the training run.
        squares: one number per task ``[k]`` on the CPU that is 0 only where its gradient is.
    """
    if not bool(squares.any()):
        warn_once(
            context,
            "zeros",
            "all task gradients of the shared parameters are exactly zero, so this step does not train them; if it goes on, "
            "the losses are not made of what the shared parameters give (a detached or compiled part, a dead activation)",
        )


def warn_of_nothing_shared(context: Context) -> None:
    """Says once that no shared parameter is trained."""
    warn_once(
        context,
        "nothing shared",
        "no parameter that the tasks share is trained (all are frozen), so there is nothing to balance: task-specific "
        "parameters get their own task's gradient; unfreeze a shared one to balance",
    )


def check_gradients(context: Context, turn: Turn, parameters: Sequence[Tensor], present: Sequence[int]) -> None:
    """Raises, naming the tasks to blame, if a ``.grad`` is not finite. A gradient scaler looks by itself."""
    if not context.check_finite or turn.scaled:
        return
    bad = nonfinite_gradients(parameters)
    if bad:
        blamed = _blame(context, bad, turn.source, present)
        detail = "" if blamed else " (in their weighted sum)"
        raise_nonfinite("gradient", context.names(blamed or present), turn.step, detail)


def nonfinite_gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those of the parameters whose ``.grad`` holds a value that is not finite."""
    having = [(parameter, stored(gradient)) for parameter in parameters if (gradient := parameter.grad) is not None]
    # A sum, or a norm, is looked at first, for it is cheap; it may overflow where the values themselves do not.
    if not having or math.isfinite(_total([gradient for _, gradient in having])):
        return []
    return [parameter for parameter, gradient in having if not bool(torch.isfinite(gradient).all())]


def _total(gradients: list[Tensor]) -> float:
    """A number that is finite only if all entries of the gradients are."""
    if len({(gradient.device, gradient.dtype) for gradient in gradients}) > 1:
        return float(get_total_norm(gradients))
    if gradients[0].device.type != "cpu" or gradients[0].is_complex():
        return float(torch.stack(torch._foreach_norm(gradients)).sum())
    small = [gradient for gradient in gradients if gradient.numel() <= _SMALL]
    sums = [gradient.sum() for gradient in gradients if gradient.numel() > _SMALL]
    if small:
        sums.append(_flatten_dense_tensors(small).sum())
    return float(torch.stack(sums).sum())


# Gradients of up to so many entries are added up in one piece on the CPU, for each call takes its time.
_SMALL = 2**14


def _blame(context: Context, bad: Sequence[Tensor], source: Source, present: Sequence[int]) -> list[int]:
    """Which tasks the non-finite gradients come from, found out by differentiating them one by one."""
    ids = {id(parameter) for parameter in bad}
    owners = [p for p in present if any(id(leaf) in ids for leaf in context.shared.own.get(p, ()))]
    blamed = owners or _differentiated_one_by_one(context, bad, source)
    # The task to blame may be one that this process does not see fail.
    flags = [position in blamed for position in range(len(context.tasks))]
    return [position for position, flag in enumerate(context.processes.either([flags], "tasks to blame")[0]) if flag]


def _differentiated_one_by_one(context: Context, bad: Sequence[Tensor], source: Source) -> list[int]:
    blamed: set[int] = set()
    for micro_batch in range(source.micro_batches):
        for position, loss in context.named(source.rehearse(micro_batch)).items():
            value = context.scalar(position, loss)
            try:
                gradients = torch.autograd.grad(value, list(bad), retain_graph=True, allow_unused=True)
            except RuntimeError:
                return []  # the drop-in's graphs are gone by now
            if any(gradient is not None and not bool(torch.isfinite(stored(gradient)).all()) for gradient in gradients):
                blamed.add(position)
    return sorted(blamed)
