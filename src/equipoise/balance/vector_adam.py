"""Adam on a vector with one entry per task, in which tasks that a batch does not hold stay as they are.

torch's own Adam would let the moments of an absent task decay; here every entry has its own moments and its own step count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equipoise.balance.base import Observation

_LARGEST = 1e150

__all__ = ["learn_from_losses", "vector_adam", "vector_adam_state"]


def vector_adam_state(like: Tensor) -> Tensor:
    """A fresh state ``[3, K]``: first moments, second moments, step counts."""
    return torch.zeros(3, *like.shape, dtype=like.dtype, device=like.device)


def vector_adam(
    values: Tensor,
    gradient: Tensor,
    state: Tensor,
    entries: Tensor | slice,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """One step of Adam (Kingma and Ba, 2015, Algorithm 1) on some entries of a vector.

    Args:
        values: ``[K]``.
        gradient: ``[k]``, of the entries alone.
        state: ``[3, K]`` of :func:`vector_adam_state`.
        entries: positions of the k entries to move; ``slice(None)`` for all of them, which is faster.
        lr: step size.
        betas: decay rates of the moments.
        epsilon: added to the root of the second moment.
        weight_decay: multiple of the values that is added to the gradient.

    Returns:
        New values and new state; the arguments are left alone.
    """
    first, second, count = state[:, entries]
    if weight_decay != 0:
        gradient = gradient + weight_decay * values[entries]
    # Beyond that its square leaves the number range, and no later step would move the entry again.
    gradient = gradient.clamp(-_LARGEST, _LARGEST)
    first = betas[0] * first + (1 - betas[0]) * gradient
    second = betas[1] * second + (1 - betas[1]) * gradient.square()
    count = count + 1
    size = (first / (1 - betas[0] ** count)) / ((second / (1 - betas[1] ** count)).sqrt() + epsilon)
    if isinstance(entries, slice):
        return values - lr * size, torch.stack([first, second, count])
    values, state = values.clone(), state.clone()
    values[entries] -= lr * size
    state[:, entries] = torch.stack([first, second, count])
    return values, state


def learn_from_losses(
    values: Tensor | None,
    state: Tensor | None,
    observation: Observation,
    gradient: Callable[[Tensor, Tensor], Tensor],
    *,
    initial: float,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """One step of :func:`vector_adam` on one number per task, for the tasks that a step's batch holds.

    ``gradient`` is from the numbers ``[k]`` and the losses ``[k]`` of the tasks present. Values and state are ``None`` before
    the first step; the new ones are in float64 on the losses' device.
    """
    losses = observation.needed("losses").double()
    if values is None or state is None:
        values = losses.new_full((len(observation.tasks),), initial)
        state = vector_adam_state(values)
    values, state = values.to(losses.device), state.to(losses.device)
    # A batch that holds every task needs no indexing.
    entries = slice(None) if observation.complete else torch.as_tensor(observation.present, device=losses.device)
    return vector_adam(values, gradient(values[entries], losses), state, entries, lr=lr)
