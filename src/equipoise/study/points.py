"""Where a run was, in loss and conflict: a thinned list of points for the scatter of conflict against loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.store import rounded
from equipoise.teleport import Dominated
from equipoise.teleport.triggers import Array

__all__ = ["Points"]


class Points:
    """Collects points while a run goes on, and drops every second one whenever there are too many.

    A point is ``(step, epoch, loss, cosine)``. ``loss`` is the mean over the tasks present of each task's loss divided by
    the magnitude of its first loss in this run, so that tasks of different scale count alike and 1 is where training began.
    Runs of the same seed start from the same parameters and batch, so their losses are on one scale. ``cosine`` is that of
    the task with the smallest gradient norm with the mean gradient; below zero is dominated conflict (eq. 3 of the COST
    paper).

    Args:
        most: at most so many points are kept; they are evenly spaced among those that were offered.

    Example:
        >>> import numpy as np
        >>> points = Points(most=2)
        >>> for step in range(5):
        ...     points.see({"a": 4.0 / (step + 1), "b": 100.0})
        ...     points.add(step, 1, {"a": 4.0 / (step + 1), "b": 100.0}, np.array([[1.0, -2.0], [-2.0, 9.0]]))
        >>> points.summary()["step"], points.summary()["loss"], points.summary()["scales"]
        ([0, 4], [1.0, 0.6], {'a': 4.0, 'b': 100.0})
    """

    def __init__(self, most: int = 300) -> None:
        self.most = most
        self.scales: dict[str, float] = {}
        self._points: list[tuple[int, int, float, float]] = []
        self._offered = 0
        self._stride = 1

    def see(self, losses: Mapping[str, float]) -> None:
        """Takes the scale of tasks that were not seen before."""
        for task, loss in losses.items():
            # A first loss of exactly zero says nothing about scale.
            self.scales.setdefault(task, abs(loss) or 1.0)

    def add(self, step: int, epoch: int, losses: Mapping[str, float], gramian: Array) -> None:
        """Offers a point: losses and Gramian of the tasks present. With fewer than two there is no conflict to show."""
        if len(losses) < 2:
            return
        if self._offered % self._stride == 0:
            loss = sum(value / self.scales[task] for task, value in losses.items()) / len(losses)
            self._points.append((step, epoch, loss, -float(Dominated().measure(gramian))))
            if len(self._points) > self.most:
                del self._points[1::2]
                self._stride *= 2
        self._offered += 1

    def summary(self) -> dict[str, Any] | None:
        """``step``, ``epoch``, ``loss`` and ``cosine`` as lists, and ``scales``; ``None`` if there is no point."""
        if not self._points:
            return None
        step, epoch, loss, cosine = zip(*self._points, strict=True)
        summary: dict[str, Any] = {"step": step, "epoch": epoch, "loss": loss, "cosine": cosine, "scales": self.scales}
        return {name: rounded(values) for name, values in summary.items()}
