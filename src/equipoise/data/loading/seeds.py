"""One seed from several numbers, such as a run's seed, the epoch and a row."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["generator_of", "mixed_seed"]


def mixed_seed(*numbers: int) -> int:
    """A seed of 63 bits in which every number counts, so that (0, 1) and (1, 0) have nothing in common.

    Example:
        >>> mixed_seed(0, 1) == mixed_seed(0, 1) != mixed_seed(1, 0)
        True
    """
    mixed = np.random.SeedSequence(numbers).generate_state(1, dtype=np.uint64)[0]
    return int(mixed >> np.uint64(1))


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of its own, seeded with :func:`mixed_seed`."""
    return torch.Generator().manual_seed(mixed_seed(*numbers))
