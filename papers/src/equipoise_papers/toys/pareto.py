"""The Pareto set of the two-task problem, computed, and how far points are from it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.errors import InputError
from equipoise_papers.toys.two_tasks import TwoTasks

__all__ = ["TOLERANCE", "ParetoCurve"]

Array = NDArray[np.float64]

TOLERANCE = 0.001
"""A point counts as Pareto-optimal if no other improves both losses by more than this. The losses range over 20 on the set; a
point is within the tolerance up to about 0.3 beside the set along ``x₂``, where the bowls are flat, and 0.1 beyond its ends."""

_SMALLEST, _LARGEST = -12.0, -6.0  # between these the minimum along x₂ lies
_HALVINGS = 60


class ParetoCurve:
    """The Pareto set: the curve of minima of ``w L_1 + (1-w) L_2`` over ``x₂ < 0``, for w from 0 to 1.

    In the bowls the minimum along ``x₁`` is at ``7 (2w - 1)`` for any ``x₂``; along ``x₂`` it is found by halving an
    interval on the derivative's sign. (The factor of ``L_1`` only changes which w belongs to which point.)

    Args:
        problem: whose set it is.
        size: how many points the curve is computed at.

    Raises:
        InputError: fewer than two points.

    Example:
        >>> pareto = ParetoCurve(TwoTasks())
        >>> pareto.contains(torch.tensor([[0.0, -8.3], [0.0, 8.3]])).tolist()
        [True, False]
    """

    def __init__(self, problem: TwoTasks, size: int = 1401) -> None:
        if size < 2:
            raise InputError(f"a curve needs at least two points; got {size}")
        self.problem = problem
        self._bowls = TwoTasks(problem.sign)
        weights = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
        first = 7.0 * (2.0 * weights - 1.0)
        low, high = torch.full_like(first, _SMALLEST), torch.full_like(first, _LARGEST)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            _, gradients = self._bowls.gradients(torch.stack((first, middle), -1))
            rising = weights * gradients[:, 0, 1] + (1.0 - weights) * gradients[:, 1, 1] > 0.0
            low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
        points = torch.stack((first, 0.5 * (low + high)), -1)
        self.points: Array = points.numpy()
        """On the curve, from the minimum of the second task to that of the first, ``[size, 2]``."""
        self.front: Array = problem.losses(points).numpy()
        """The losses there, ``[size, 2]``."""

        self._losses: Array = self._bowls.losses(points).numpy()
        self._differences: Array = self._losses[:, 1] - self._losses[:, 0]

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

    def gap(self, points: Tensor | Array) -> Array:
        """By how much both losses could be improved at once, ``[...]``, for points ``[..., 2]``.

        ``max over Pareto-optimal p of min_i (L_i - L_i(p))``: the smallest ε for which the point is ε-Pareto-optimal. The first
        loss is taken without the factor 0.1, which says nothing about optimality.
        """
        losses = self._bowls.losses(torch.as_tensor(points, dtype=torch.float64)).numpy()
        # Taking the same from both losses keeps their difference, which rises along the set: it tells where the front is met.
        difference = losses[..., 1] - losses[..., 0]
        met = [np.interp(difference, self._differences, own) for own in self._losses.T]
        gaps: Array = np.minimum(losses[..., 0] - met[0], losses[..., 1] - met[1])
        return gaps

    def contains(self, points: Tensor | Array, tolerance: float = TOLERANCE) -> NDArray[np.bool_]:
        """Whether points ``[..., 2]`` are Pareto-optimal up to ``tolerance``, ``[...]``: their :meth:`gap` is not larger."""
        inside: NDArray[np.bool_] = self.gap(points) <= tolerance
        return inside
