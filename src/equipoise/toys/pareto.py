"""The Pareto set of the two-task problem, computed, and how far points are from it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.errors import InputError
from equipoise.toys.two_tasks import TwoTasks

__all__ = ["TOLERANCE", "ParetoSet"]

Array = NDArray[np.float64]

TOLERANCE = 0.1
"""Points closer than this count as being on the set. It is 14 long and the losses range over more than 20 there, while being
off by the tolerance costs a loss less than 0.01; Adam with a constant step of 1e-3 hovers well within it."""

_SMALLEST, _LARGEST = -12.0, -6.0  # between these the minimum along x₂ lies
_HALVINGS = 60


class ParetoSet:
    """The Pareto set: the curve of minima of ``w L_1 + (1-w) L_2`` over ``x₂ < 0``, for w from 0 to 1.

    In the bowls the minimum along ``x₁`` is at ``7 (2w - 1)`` for any ``x₂``; along ``x₂`` it is found by halving an
    interval on the derivative's sign. (The factor of ``L_1`` only changes which w belongs to which point.)

    Args:
        problem: whose set it is.
        size: how many points the curve is computed at.

    Raises:
        InputError: fewer than two points.

    Example:
        >>> pareto = ParetoSet(TwoTasks())
        >>> pareto.contains(torch.tensor([[0.0, -8.3], [0.0, 8.3]])).tolist()
        [True, False]
    """

    def __init__(self, problem: TwoTasks, size: int = 281) -> None:
        if size < 2:
            raise InputError(f"a curve needs at least two points; got {size}")
        bowls = TwoTasks(problem.sign)
        weights = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
        first = 7.0 * (2.0 * weights - 1.0)
        low, high = torch.full_like(first, _SMALLEST), torch.full_like(first, _LARGEST)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            _, gradients = bowls.gradients(torch.stack((first, middle), -1))
            rising = weights * gradients[:, 0, 1] + (1.0 - weights) * gradients[:, 1, 1] > 0.0
            low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
        points = torch.stack((first, 0.5 * (low + high)), -1)
        self.points: Array = points.numpy()
        """On the curve, from the minimum of the second task to that of the first, ``[size, 2]``."""
        self.front: Array = problem.losses(points).numpy()
        """The losses there, ``[size, 2]``."""

    def distance(self, points: Tensor | Array) -> Array:
        """Distances ``[...]`` of points ``[..., 2]`` from the set.

        Measured to the point of the curve with the same ``x₁`` (or to its nearer end): the curve is so flat that this is the
        distance itself up to a tenth of a per cent.
        """
        given = np.asarray(points, dtype=np.float64)
        if given.ndim == 0 or given.shape[-1] != 2:
            raise InputError(f"points have the shape [..., 2]; got {list(given.shape)}")
        nearest = given[..., 0].clip(self.points[0, 0], self.points[-1, 0])
        level = np.interp(nearest, self.points[:, 0], self.points[:, 1])
        distances: Array = np.hypot(given[..., 0] - nearest, given[..., 1] - level)
        return distances

    def contains(self, points: Tensor | Array, tolerance: float = TOLERANCE) -> NDArray[np.bool_]:
        """Whether points ``[..., 2]`` are within ``tolerance`` of the set, ``[...]``."""
        inside: NDArray[np.bool_] = self.distance(points) <= tolerance
        return inside
