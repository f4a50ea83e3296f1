"""Adam on many trajectories at once, each with a step counter of its own."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Adam"]

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """``torch.optim.Adam`` with its default betas, row by row; every row may forget its history alone.

    Args:
        points: where the trajectories are, ``[n, 2]``; moved in place.
        lr: learning rate.
    """

    def __init__(self, points: Tensor, lr: float) -> None:
        self.points = points
        self.lr = lr
        self.first = torch.zeros_like(points)
        self.second = torch.zeros_like(points)
        self.steps = torch.zeros(len(points), 1, dtype=torch.float64)

    def step(self, gradients: Tensor) -> None:
        """Takes a step with gradients ``[n, 2]``."""
        self.steps += 1.0
        self.first.lerp_(gradients, 1.0 - _FIRST)
        self.second.mul_(_SECOND).addcmul_(gradients, gradients, value=1.0 - _SECOND)
        size = self.lr / (1.0 - _FIRST**self.steps)
        root = (self.second.sqrt() / (1.0 - _SECOND**self.steps).sqrt()).add_(_EPSILON)
        self.points -= size * self.first / root

    def forget(self, row: int) -> None:
        """Begins a row's history afresh."""
        for buffer in (self.first, self.second, self.steps):
            buffer[row] = 0.0

    def blend(self, row: int, gradient: Tensor, sigma: float) -> None:
        """Eq. 13 of the COST paper for one row, just before the step with its ``gradient`` ``[2]``.

        See :func:`equipoise.teleport.history.blend`.
        """
        sigma = min(max(sigma, 0.0), 1.0)
        self.first[row] = sigma * self.first[row] + (1.0 - sigma) * gradient
        self.second[row] = sigma * self.second[row] + (1.0 - sigma) * gradient.square()
