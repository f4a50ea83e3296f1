"""The record of one run: what is in it, how one tells a whole record from anything else, and what it says of the machine."""

from __future__ import annotations

import platform
import random
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from equipoise.store import rounded
from equipoise.study.plan import Run
from equipoise.teleport import Dominated
from equipoise.teleport.triggers import Array
from equipoise.version import __version__

__all__ = ["SCHEMA", "Points", "Record", "describe", "is_whole", "matches", "peak_memory_mb", "seed_process", "versions"]


def versions() -> dict[str, str]:
    """Versions of everything that the numbers of a run depend on."""
    return {
        "equipoise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def peak_memory_mb() -> float | None:
    """The most memory this process ever had resident, in MB of 10⁶ bytes; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def seed_process(seed: int) -> None:
    """Seeds every global generator of this process. Only for a process that belongs to a run, never in a user's own."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (a user's code may draw from the global generator)
    torch.manual_seed(seed)


SCHEMA = 1
"""Counts up whenever the meaning of a record changes; records of another schema are run again."""

Record: TypeAlias = dict[str, Any]

_PARTS = {
    "run": dict,  # method (label), name, options, task, seed
    "epochs": int,
    "history": list,  # one entry per epoch: losses, validation, test, weights, conflicts, seconds (steps and teleports)
    "final": dict,  # validation and test metrics that are reported: after the last epoch, or see reported.py
    "seconds_a_step": dict,  # median, mean, steps: optimizer steps alone, without evaluation and diagnostics
    "memory_mb": dict,  # base (before data and model), training, process: high-water marks of the resident set
    "wall_seconds": float,
    "versions": dict,
}
"""What every record holds. Records of earlier versions may lack ``history``'s ``seconds`` and the two parts below, which are
rounded to six significant digits:

``points``     where the run was in loss and conflict (:class:`equipoise.study.records.Points`); ``None`` without a Gramian
``teleports``  one entry per attempt to teleport (:class:`equipoise.teleport.TeleportReport`); empty without a teleport
"""


def describe(run: Run) -> dict[str, Any]:
    """What says in a record (and in a folder's configuration) which run it is."""
    return {
        "method": run.label,
        "name": run.method.name if run.method else "stl",
        "options": dict(run.method.options) if run.method else {},
        "task": run.task,
        "seed": run.seed,
    }


def is_whole(record: Any) -> bool:
    """Whether something is a whole record: not of another schema, nor without its last entry ``complete``."""
    return (
        isinstance(record, dict)
        and record.get("schema") == SCHEMA
        and record.get("complete") is True
        and all(isinstance(record.get(part), kind) for part, kind in _PARTS.items())
        and len(record["history"]) == record["epochs"]
    )


def matches(record: Record, run: Run, epochs: int) -> bool:
    """Whether a record is that of this run."""
    own = record["run"]
    return bool(
        own.get("method") == run.label
        and own.get("task") == run.task
        and own.get("seed") == run.seed
        and record["epochs"] == epochs
    )


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
