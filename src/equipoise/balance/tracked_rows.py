"""Memories as large as the task gradients: one row of length P per task, kept without a copy.

A decision must not change the memory, for the step may still fail. So it computes what it needs row by row, in one spare
vector ``[P]``, and holds on to the step's gradients until :meth:`~equipoise.balance.base.Balancer.update` moves the memory in
place. The engine overwrites these gradients only in the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.balance.base import Balancer, Observation
from equipoise.errors import InputError

__all__ = ["check_rows_memory", "fresh_rows", "mixed_row", "move_rows"]


def check_rows_memory(balancer: Balancer, memory: Tensor | None, observation: Observation) -> None:
    """Refuses to go on with a memory ``[K, P]`` of other tasks or of other shared parameters.

    Raises:
        InputError: K or P differ.
    """
    assert observation.gradients is not None
    if memory is None:
        return
    observation.check_memory(balancer, memory[:, 0])
    if memory.shape[1] != observation.gradients.shape[1]:
        raise InputError(
            f"this {type(balancer).__name__} has learned from gradients of {memory.shape[1]} shared parameters and now meets "
            f"{observation.gradients.shape[1]}; make a new one for another model"
        )


def fresh_rows(observation: Observation, gradients: Tensor) -> Tensor:
    """A memory ``[K, P]`` of zeros like the gradients."""
    return gradients.new_zeros(len(observation.tasks), gradients.shape[1])


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
