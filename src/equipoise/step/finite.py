"""Finding losses and gradients that are infinite or not a number, before anything has changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from equipoise.errors import InputError, NonFiniteError

__all__ = ["as_tensor", "check_losses", "nonfinite_gradients", "raise_nonfinite", "which_finite"]


def raise_nonfinite(what: str, tasks: Sequence[str], step: int, detail: str = "") -> None:
    """Raises :class:`~equipoise.NonFiniteError`, naming the tasks and the step."""
    named = ", ".join(f'"{task}"' for task in tasks)
    raise NonFiniteError(
        f"the {what} of task {named} is not finite in step {step}{detail}; the step was not taken and nothing has changed",
        tasks=tuple(tasks),
        step=step,
        what=what,
    )


def as_tensor(answer: object, balancer: object) -> Tensor:
    """A balancer's answer as a tensor; lists and arrays of numbers are welcome, too.

    Raises:
        InputError: nothing that could be a tensor.
    """
    if isinstance(answer, Tensor):
        return answer
    try:
        return torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{type(balancer).__name__} must answer with a tensor of numbers; it gave {type(answer).__name__}"
        ) from None


def which_finite(values: Tensor) -> list[bool]:
    """For each of a few numbers whether it is finite.

    On the CPU a list of Python numbers is looked through faster than two more tensors are made.
    """
    return [math.isfinite(value) for value in values.tolist()]


def check_losses(losses: Tensor, tasks: Sequence[str], step: int) -> None:
    """Raises if one of the losses ``[k]`` of these tasks is not finite."""
    finite = which_finite(losses)
    if not all(finite):
        bad = [task for task, fine in zip(tasks, finite, strict=True) if not fine]
        values = [value for value, fine in zip(losses.tolist(), finite, strict=True) if not fine]
        raise_nonfinite("loss", bad, step, f" (it is {', '.join(map(str, values))})")


def nonfinite_gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those of the parameters whose ``.grad`` holds a value that is not finite."""
    having = [
        (parameter, _values(parameter.grad))
        for parameter in parameters
        if parameter.grad is not None and parameter.grad.numel()
    ]
    if not having:
        return []
    # Norms are looked at first, for they are cheap; they may overflow where the values themselves do not.
    gradients = [gradient for _, gradient in having]
    if len({(gradient.device, gradient.dtype) for gradient in gradients}) == 1:
        total = torch.stack(torch._foreach_norm(gradients)).sum()
    else:
        total = get_total_norm(gradients)
    if math.isfinite(total.item()):
        return []
    return [parameter for parameter, gradient in having if not bool(torch.isfinite(gradient).all())]


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
