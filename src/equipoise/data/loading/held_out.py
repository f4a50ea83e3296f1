"""Which training rows are kept back for validation, where a data set comes without such a split."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.data.loading.seeds import generator_of
from equipoise.errors import InputError

__all__ = ["held_out"]


def held_out(count: int, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Splits ``count`` rows at random: those to train on and those to validate on, each in ascending order.

    Args:
        count: rows there are.
        fraction: of them that are kept back, in [0, 1).
        seed: of the choice; not the seed of a run, so that all runs validate on the same rows.

    Returns:
        Row numbers ``[n]`` and ``[m]``, int64, n + m = count; m is 0 only if the fraction is.

    Raises:
        InputError: the fraction is outside [0, 1), or leaves nothing to train on.

    Example:
        >>> [len(rows) for rows in held_out(50, 0.1)]
        [45, 5]
    """
    if not 0 <= fraction < 1:
        raise InputError(f"validation is {fraction}; it must be the fraction of training rows to keep back, in [0, 1)")
    kept = max(1, round(fraction * count)) if fraction else 0
    if kept >= count:
        raise InputError(f"validation={fraction} keeps back {kept} of {count} training rows; at least one must be left")
    order = torch.randperm(count, generator=generator_of(seed))
    return order[kept:].sort().values, order[:kept].sort().values
