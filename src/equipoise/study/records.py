"""The record of one run: what is in it, how one tells a whole record from anything else, and what it says of the machine."""

from __future__ import annotations

import platform
import random
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from equipoise.reading import Kind, anything, fields, listed, maybe, named, number, text, truth, whole
from equipoise.store import rounded
from equipoise.study.plan import Run
from equipoise.teleport import Dominated
from equipoise.teleport.triggers import Array
from equipoise.version import __version__

__all__ = ["SCHEMA", "STUDY", "Points", "Record", "describe", "fault", "matches", "peak_memory_mb", "seed_process", "versions"]


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
    """Seeds every global generator of this process. In a user's own they must be put back."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (a user's code may draw from the global generator)
    torch.manual_seed(seed)


SCHEMA = 1
"""Counts up whenever the meaning of a record changes; records of another schema are run again."""

Record: TypeAlias = dict[str, Any]

_METRICS = named(maybe(number))
_TELEPORT = fields(
    {
        "step": whole,
        "epoch": whole,
        "trigger": text,
        "tasks": listed(text),
        "accepted": truth,
        "reason": text,
        **dict.fromkeys(("sigma", "distance", "measure_before", "measure_after", "seconds"), maybe(number)),
        **dict.fromkeys(
            (f"{what}_{when}" for what in ("cosines", "norms", "losses") for when in ("before", "after")), anything
        ),
        **dict.fromkeys(("invariance", "reward"), listed(maybe(number))),
    },
    {"batch_tasks": listed(text)}
    | {f"batch_{what}_{when}": anything for what in ("cosines", "norms", "losses") for when in ("before", "after")},
)


def _teleport(value: Any) -> str:
    """An attempt, with as many numbers as there are tasks, or none."""
    if said := _TELEPORT(value):
        return said
    for name in value:
        if name.removeprefix("batch_").startswith(("cosines_", "norms_", "losses_")) and value[name] != []:
            tasks = value.get("batch_tasks", []) if name.startswith("batch_") else value["tasks"]
            if said := listed(maybe(number), len(tasks))(value[name]):
                return f".{name}{said}"
    return ""


_AUDIT = fields({"step": whole, "source": text, "direction": maybe(number), "weights": maybe(number)})
_POINT = ("step", "epoch", "loss", "cosine")


def _points(value: Any) -> str:
    if said := fields({**dict.fromkeys(_POINT, listed(maybe(number))), "scales": _METRICS})(value):
        return said
    return "" if len({len(value[name]) for name in _POINT}) == 1 else " has lists of different lengths"


_EPOCH: Kind = fields(
    {"losses": _METRICS},
    {
        "validation": maybe(_METRICS),
        "test": maybe(_METRICS),
        "weights": maybe(_METRICS),
        "seconds": maybe(number),
        "recorded": maybe(_METRICS),
        "conflicts": maybe(
            fields(
                {},
                {
                    "any": maybe(number),
                    "smallest": maybe(number),
                    "pareto": maybe(number),  # distance from Pareto stationarity, relative
                    "tasks": named(_METRICS),
                    "cosines": maybe(listed(listed(maybe(number)))),
                },
            )
        ),
    },
)

_RECORD = fields(
    {
        # method (label), name, options, task, seed
        "run": fields(
            {"method": text, "seed": whole},
            {"task": maybe(text), "name": text, "options": named(anything), "lr": maybe(number)},
        ),
        "epochs": whole,
        "history": listed(
            _EPOCH
        ),  # one entry per epoch: losses, validation, test, weights, conflicts, seconds (with teleports)
        "final": fields(  # metrics that are reported: after the last epoch, or see reported.py
            {"validation": maybe(_METRICS), "test": _METRICS}
        ),
        "seconds_a_step": fields(
            {"median": number}
        ),  # and mean, steps: optimizer steps alone, without evaluation and diagnostics
        # base (before data and model), training, process: high-water marks of the resident set
        "memory_mb": fields({"training": maybe(number)}),
        "wall_seconds": number,
        "versions": named(text),
    },
    {
        "points": maybe(_points),
        "teleports": maybe(listed(_teleport)),
        "alone": truth,
        "waits": maybe(named(whole)),
        "audits": maybe(listed(_AUDIT)),
    },
)
"""What every record holds. Records of earlier versions may lack ``history``'s ``seconds`` and the two parts below, which are
rounded to six significant digits:

``points``     where the run was in loss and conflict (:class:`equipoise.study.records.Points`); ``None`` without a Gramian
``teleports``  one entry per attempt to teleport (:class:`equipoise.teleport.TeleportReport`); empty without a teleport
``audits``     one entry per exact Gramian that was formed beside a proxy (:class:`equipoise.proxy.Audit`)
``alone``      whether no other run of the study was under way, so that its times are those of a solo run
``waits``      why no attempt was made after a step → after how many; also only in later ones
"""

STUDY: Kind = fields(
    {
        "problem": fields(
            {
                "name": text,
                "tasks": listed(text),
                "metrics": listed(
                    fields({"name": text, "task": text, "higher_is_better": truth}, {"unit": text, "label": text})
                ),
                "options": named(anything),
            },
            {"reported": text},
        ),
        "epochs": whole,
        "methods": named(fields({"name": text, "options": named(anything)})),
        "seeds": listed(whole),
    },
    {"gramian_every": maybe(whole), "lr": listed(number), "tuned": named(anything)}
    | dict.fromkeys(("device", "compile", "amp"), text),
)
"""What a study's folder remembers."""


def describe(run: Run) -> dict[str, Any]:
    """What says in a record (and in a folder's configuration) which run it is."""
    return {
        "method": run.label,
        "name": run.method.name if run.method else "stl",
        "options": dict(run.method.options) if run.method else {},
        "task": run.task,
        "seed": run.seed,
        **({} if run.lr is None else {"lr": run.lr}),
    }


def fault(record: Any) -> str:
    """Why something is no whole record, in words; nothing if it is one. The last entry that is written is ``complete``."""
    if not isinstance(record, dict):
        return "it is no record of a run"
    if record.get("schema") != SCHEMA:
        return f"its schema is not {SCHEMA}: it was written by another version of equipoise"
    if record.get("complete") is not True:
        return "it is not complete"
    if said := _RECORD(record):
        return said.removeprefix(".").strip()
    epochs = len(record["history"])
    return "" if epochs == record["epochs"] else f"history has {epochs} entries, not {record['epochs']}"


def matches(record: Record, run: Run, epochs: int) -> bool:
    """Whether a record is that of this run."""
    own = record["run"]
    return bool(
        own.get("method") == run.label
        and own.get("task") == run.task
        and own.get("seed") == run.seed
        and own.get("lr") == run.lr
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
