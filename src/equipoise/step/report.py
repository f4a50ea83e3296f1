"""What happened in a step; everything that can be derived is derived only when somebody reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equipoise.solvers import pareto_distance

__all__ = ["StepReport"]


@dataclass(frozen=True)
class StepReport:
    """What happened in one step. The vectors have one entry for each task present, in the order of ``tasks``.

    In a step that teleported, losses, weights and Gramian are those at the new point, from which the step was taken; those
    at the point before are in ``teleport``.

    Attributes:
        tasks: names of the k tasks present.
        losses: their losses ``[k]``, detached, on the model's device.
        weights: the balancer's weights ``[k]``; ``None`` for a balancer that answers with a direction, and where no shared
            parameter is trained, so that there was nothing to balance.
        gramian: inner products of the task gradients ``[k, k]`` (float64, CPU); ``None`` where none was formed.
        step: index of the step, counted from 0.
        skipped: whether no step was taken, and the balancer learned nothing: the loss scaler met an overflow, the batch held
            no task's loss (``tasks`` is empty then), or the optimizer left the parameters alone.
        teleport: what the teleport did before the step, if it did anything.
        proxy: where a proxy Gramian was taken; ``None`` for an exact one.
        audit: what an exact Gramian of the same batch said of the proxy, if this step formed one.
        fixed: the losses with fixed weights by name, detached; in this process.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    weights: Tensor | None = None
    gramian: Tensor | None = None
    step: int = 0
    skipped: bool = False
    teleport: Any = None
    proxy: str | None = None
    audit: Any = None
    fixed: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def norms(self) -> Tensor | None:
        """Norms of the task gradients, ``[k]``."""
        return None if self.gramian is None else self.gramian.diagonal().clamp(min=0).sqrt()

    @cached_property
    def mean_norm(self) -> float | None:
        """Norm of the mean gradient g_0."""
        return None if self.gramian is None else float(self.gramian.mean().clamp(min=0).sqrt())

    @cached_property
    def cosines(self) -> Tensor | None:
        """Cosine of each task gradient with the mean gradient, ``[k]``; 0 where either of them vanishes."""
        if self.gramian is None:
            return None
        assert self.norms is not None
        scale = self.norms * self.gramian.mean().clamp(min=0).sqrt()
        return torch.where(scale > 0, self.gramian.mean(1) / torch.where(scale > 0, scale, 1), 0.0).clamp(-1, 1)

    @cached_property
    def pairwise_cosines(self) -> Tensor | None:
        """Cosines between the task gradients, ``[k, k]``; 0 where one of them vanishes."""
        if self.gramian is None:
            return None
        assert self.norms is not None
        scale = torch.outer(self.norms, self.norms)
        return torch.where(scale > 0, self.gramian / torch.where(scale > 0, scale, 1), 0.0).clamp(-1, 1)

    @cached_property
    def conflicts(self) -> Tensor | None:
        """Which tasks conflict with the mean gradient (a negative inner product), ``[k]``."""
        return None if self.gramian is None else self.gramian.mean(1) < 0

    @cached_property
    def pareto_distance(self) -> float | None:
        """How far the point was from Pareto stationarity, 0 to 1: √(min wᵀC w) over the simplex, C being the cosines between
        the task gradients; see :func:`equipoise.solvers.pareto_distance`, which also gives it in the gradients' own units. Of a
        proxy Gramian it is that of the weights which the proxy looks at.
        """
        if self.gramian is None:
            return None
        gramian = self.gramian.numpy()
        return pareto_distance(gramian) if np.isfinite(gramian).all() else math.nan
