"""Losses added up over an epoch, task by task, for methods that look at the means of whole epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.balance.base import Observation

__all__ = ["add_losses"]


def add_losses(sums: Tensor | None, counts: Tensor | None, observation: Observation) -> tuple[Tensor, Tensor]:
    """Adds a step's losses.

    Args:
        sums: of the losses so far ``[K]``; ``None`` at the beginning of an epoch.
        counts: in how many steps each task was seen ``[K]``.
        observation: of the step.

    Returns:
        New sums and counts, in float64 on the losses' device; the arguments are left alone.
    """
    assert observation.losses is not None
    losses = observation.losses.double()
    if sums is None or counts is None:
        sums = losses.new_zeros(len(observation.tasks))
        counts = torch.zeros_like(sums)
    entries = torch.as_tensor(observation.present, device=losses.device)
    sums = sums.to(losses.device).index_add(0, entries, losses)
    return sums, counts.to(losses.device).index_add(0, entries, torch.ones_like(losses))
