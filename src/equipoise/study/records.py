"""The record of one run: what is in it, and how one tells a whole record from anything else."""

from __future__ import annotations

from typing import Any, TypeAlias

from equipoise.study.plan import Run

__all__ = ["SCHEMA", "Record", "describe", "is_whole", "matches"]

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

``points``     where the run was in loss and conflict (:class:`equipoise.study.points.Points`); ``None`` without a Gramian
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
