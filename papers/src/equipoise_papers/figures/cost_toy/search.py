"""COST's inner search from many points at once, on a problem whose losses depend on the points alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.teleport import PaperFormulation
from equipoise.teleport.triggers import norms
from equipoise_papers.figures.cost_toy.adam import Adam
from equipoise_papers.figures.cost_toy.settings import Teleporting
from equipoise_papers.toys import TwoTasks

__all__ = ["directions", "search"]

Array = NDArray[np.float64]
_TINY = 1e-30


def directions(seeds: Sequence[int], count: int, dtype: torch.dtype) -> Tensor:
    """Unit vectors, uniform on the circle, ``[count, len(seeds), 2]``.

    Each is drawn as :class:`~equipoise.teleport.COST` draws the perturbation of a parameter of two entries, one call after
    the other, so that the same seed gives the same numbers here and there.
    """
    drawn = torch.empty(count, len(seeds), 2, dtype=dtype)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for number in range(count):
            drawn[number, row] = torch.randn(2, generator=generator, dtype=dtype)
    unit: Tensor = drawn / drawn.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    return unit


def search(problem: TwoTasks, points: Tensor, settings: Teleporting, gram: Array, sizes: Tensor, noise: Tensor) -> Tensor:
    """Minimises ``L_t - γ L_g`` (eq. 7 to 11) over Δθ with Adam, for each point by itself.

    Args:
        problem: the losses.
        points: θ, ``[n, 2]``.
        settings: γ, δ, inner steps and their learning rate.
        gram: Gramians of the task gradients there ``[n, 2, 2]``, for R (eq. 10).
        sizes: what the losses are divided by, ``[n, 2]``.
        noise: unit vectors ``[inner steps, samples, n, 2]``.

    Returns:
        Δθ, ``[n, 2]``.
    """
    formulation = PaperFormulation(settings.gamma, settings.radius)
    balance = points.new_tensor(np.stack([formulation.balance(row) for row in norms(gram) / sizes.numpy()]))
    reference = problem.losses(points) / sizes
    still = torch.zeros(1, *points.shape, dtype=points.dtype)
    delta = torch.zeros_like(points)
    inner = Adam(delta, settings.inner_lr)
    rows = torch.arange(len(points))
    for directions_now in noise:
        moving = delta.clone().requires_grad_()
        evaluated = problem.losses(points + moving + torch.cat((still, settings.radius * directions_now)))
        evaluated = evaluated / sizes
        invariance = (evaluated[0] - reference).abs().mean(-1)
        rises = (balance * (evaluated[1:] - evaluated[0])).mean(-1)
        with torch.no_grad():
            largest = rises.abs().argmax(0)
        objective = invariance - settings.gamma * rises[largest, rows].abs()
        # Rows do not touch each other, so the gradient of the sum is every row's own.
        (gradients,) = torch.autograd.grad(objective.sum(), moving)
        inner.step(gradients)
    return delta
