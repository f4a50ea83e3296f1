"""What happened in a step; everything that can be derived is derived only when somebody reads it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from equipoise.solvers import pareto_distance

if TYPE_CHECKING:
    from equipoise.engine.gradients import TaskGradients

__all__ = ["KeptRows", "StepReport"]


class KeptRows:
    """The rows of a step, as long as no other has filled them.

    Args:
        engine: that holds them.
        read: their Gramian ``[k, k]`` without factors and scale, from the engine's own.
    """

    def __init__(self, engine: TaskGradients, read: Callable[[Tensor], Tensor]) -> None:
        self._engine = weakref.ref(engine)
        self._filling = engine.fillings
        self._read = read

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # whoever gets a copy, in another process say, has no rows

    def gramian(self) -> Tensor | None:
        """Their Gramian ``[k, k]`` (float64, CPU); ``None`` if they are gone."""
        engine = self._engine()
        return None if engine is None or engine.fillings != self._filling else self._read(engine.gramian().cpu())


@dataclass(frozen=True)
class StepReport:
    """What happened in one step. The vectors have one entry for each task present, in the order of ``tasks``.

    A balancer that looks at task gradients themselves forms no Gramian, but keeps their rows until the next step: until then
    norms, cosines and what else is derived come from these, when somebody asks; later they are ``None``.

    In a step that teleported, losses, weights and Gramian are those at the new point, from which the step was taken; those
    at the point before are in ``teleport``.

    Attributes:
        tasks: names of the k tasks present.
        losses: their losses ``[k]``, detached, on the model's device.
        weights: the balancer's weights ``[k]``; ``None`` for a balancer that answers with a direction, and where no shared
            parameter is trained, so that there was nothing to balance.
        gramian: inner products of the task gradients ``[k, k]`` (float64, CPU), in the balancer's metric; ``None`` where none
            was formed.
        step: index of the step, counted from 0.
        skipped: whether no step was taken, and the balancer learned nothing: the loss scaler met an overflow, the batch held
            no task's loss (``tasks`` is empty then), or the optimizer left the parameters alone.
        teleport: what the teleport did before the step, if it did anything.
        proxy: where a proxy Gramian was taken; ``None`` for an exact one.
        audit: what an exact Gramian of the same batch said of the proxy, if this step formed one.
        fixed: the losses with fixed weights by name, detached; in this process.
        rows: the task gradients' rows while they are kept, for what is derived.

    Example:
        >>> report = StepReport(("a", "b"), torch.tensor([1.0, 2.0]), gramian=torch.tensor([[4.0, -1.0], [-1.0, 0.5]]))
        >>> report.scalars("train")["train/norm/a"], report.scalars()["conflict_share"]
        (2.0, 0.5)
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
    rows: KeptRows | None = field(default=None, repr=False, compare=False)

    @cached_property
    def _known(self) -> Tensor | None:
        return self.gramian if self.gramian is not None or self.rows is None else self.rows.gramian()

    @cached_property
    def norms(self) -> Tensor | None:
        """Norms of the task gradients, ``[k]``."""
        return None if self._known is None else self._known.diagonal().clamp(min=0).sqrt()

    @cached_property
    def mean_norm(self) -> float | None:
        """Norm of the mean gradient g_0."""
        return None if self._known is None else float(self._known.mean().clamp(min=0).sqrt())

    @cached_property
    def cosines(self) -> Tensor | None:
        """Cosine of each task gradient with the mean gradient, ``[k]``; 0 where either of them vanishes."""
        if self._known is None:
            return None
        assert self.norms is not None
        scale = self.norms * self._known.mean().clamp(min=0).sqrt()
        return torch.where(scale > 0, self._known.mean(1) / torch.where(scale > 0, scale, 1), 0.0).clamp(-1, 1)

    @cached_property
    def pairwise_cosines(self) -> Tensor | None:
        """Cosines between the task gradients, ``[k, k]``; 0 where one of them vanishes."""
        if self._known is None:
            return None
        assert self.norms is not None
        scale = torch.outer(self.norms, self.norms)
        return torch.where(scale > 0, self._known / torch.where(scale > 0, scale, 1), 0.0).clamp(-1, 1)

    @cached_property
    def conflicts(self) -> Tensor | None:
        """Which tasks conflict with the mean gradient (a negative inner product), ``[k]``."""
        return None if self._known is None else self._known.mean(1) < 0

    @cached_property
    def pareto_distance(self) -> float | None:
        """How far the point was from Pareto stationarity, 0 to 1: √(min wᵀC w) over the simplex, C being the cosines between
        the task gradients; see :func:`equipoise.solvers.pareto_distance`, which also gives it in the gradients' own units. Of a
        proxy Gramian it is that of the weights which the proxy looks at.
        """
        if self._known is None:
            return None
        gramian = self._known.numpy()
        return pareto_distance(gramian) if np.isfinite(gramian).all() else math.nan

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """Everything about the step that is one number, by name: for TensorBoard and its like.

        ``loss/TASK``, ``weight/TASK``, ``norm/TASK`` and ``cosine/TASK`` (with the mean gradient) for each task present;
        ``conflict_share``, the share of them whose gradient has a negative inner product with the mean gradient;
        ``mean_norm``, its norm; ``pareto_distance``; ``skipped``, 1 if no step was taken; ``fixed/NAME``; in a step with an
        audit ``audit/direction`` and ``audit/weights``, in one with a teleport ``teleport/accepted``, ``teleport/sigma``,
        ``teleport/distance``, ``teleport/measure_before``, ``teleport/measure_after`` and ``teleport/seconds``. What the step
        did not form is left out, and nothing is computed for this but the Gramian of rows that are kept and sums over it.

        Args:
            prefix: stands before every name, with a slash between.
        """
        found: dict[str, float] = {}
        vectors = {"loss": self.losses, "weight": self.weights, "norm": self.norms, "cosine": self.cosines}
        for what, vector in vectors.items():
            if vector is not None:
                found |= {f"{what}/{task}": float(value) for task, value in zip(self.tasks, vector.tolist(), strict=True)}
        if self.conflicts is not None and self.mean_norm is not None and self.pareto_distance is not None:
            share = float(self.conflicts.double().mean())
            found |= {"conflict_share": share, "mean_norm": self.mean_norm, "pareto_distance": self.pareto_distance}
        found["skipped"] = float(self.skipped)
        found |= {f"fixed/{name}": float(loss) for name, loss in self.fixed.items()}
        for what, event, names in (("audit", self.audit, _OF_AUDITS), ("teleport", self.teleport, _OF_TELEPORTS)):
            values = {name: getattr(event, name, None) for name in names}  # a teleport may be a user's own
            found |= {f"{what}/{name}": float(value) for name, value in values.items() if isinstance(value, bool | float | int)}
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        return {f"{start}{name}": value for name, value in found.items()}


_OF_AUDITS = ("direction", "weights")
_OF_TELEPORTS = ("accepted", "sigma", "distance", "measure_before", "measure_after", "seconds")
