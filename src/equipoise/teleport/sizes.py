"""What losses are divided by, so that γ and a tolerance mean the same for large and for small ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from equipoise.teleport.joint import Array

__all__ = ["SMALLEST_SIZE", "LossSizes"]

SMALLEST_SIZE = 1e-3
"""A loss close to zero is divided by this share of the largest it ever was, not by itself."""
_TINY = 1e-30


class LossSizes:
    """Sizes of the task losses; remembers the largest of each.

    Args:
        relative: whether losses are divided at all; sizes are 1 where not.
    """

    def __init__(self, relative: bool) -> None:
        self.relative = relative
        self._largest: Array | None = None

    def __call__(self, losses: Array) -> Array:
        """Sizes ``[K]`` of losses ``[K]``; a task that is not there has the loss 0.

        Example:
            >>> sizes = LossSizes(relative=True)
            >>> sizes(np.array([2.0, -8.0])).tolist(), sizes(np.array([0.0, 4.0])).tolist()
            ([2.0, 8.0], [0.002, 4.0])
        """
        sizes = self.of(losses)
        return sizes if self.relative else np.ones_like(losses)

    def of(self, losses: Array) -> Array:
        """Sizes ``[K]``, whether losses are divided by them or not."""
        own = np.abs(losses)
        # One loss that was not finite must not stay the measure of all that follow.
        seen = np.where(np.isfinite(own), own, 0.0)
        if self._largest is None or len(self._largest) != len(own):
            self._largest = np.zeros_like(own)
        self._largest = np.maximum(self._largest, seen)
        return np.maximum(own, SMALLEST_SIZE * self._largest).clip(min=_TINY)

    def state_dict(self) -> dict[str, Any]:
        """What was remembered."""
        return {"largest": None if self._largest is None else torch.from_numpy(self._largest.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        largest = state["largest"]
        self._largest = None if largest is None else largest.numpy().copy()
