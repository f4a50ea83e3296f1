"""How far apart a method leaves the losses of the tasks (Table 3 and Figure 8 of the LDC-MTL paper)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from equipoise.study.results import Results

__all__ = ["Discrepancy", "discrepancy", "final_losses", "relative_losses"]


@dataclass(frozen=True)
class Discrepancy:
    """Statistics over the tasks, each the mean over the seeds.

    Attributes:
        mean: of the losses.
        deviation: their standard deviation (of these K numbers, not an estimate from a sample).
        lowest: the smallest loss.
        highest: the largest loss.
    """

    mean: float
    deviation: float
    lowest: float
    highest: float


def final_losses(results: Results, method: str) -> list[list[float]]:
    """Training losses of the last epoch, means over its steps: seed → task; tasks that were never seen are left out."""
    return [
        [float(own["losses"][task]) for task in results.tasks if task in own["losses"]]
        for own in (record["history"][-1] for record in results.records(method).values())
    ]


def relative_losses(results: Results, method: str) -> list[list[float]]:
    """The same, each over the size of the task's first loss in that run; empty where that was not recorded."""
    relative = []
    for record in results.records(method).values():
        scales = (record.get("points") or {}).get("scales") or {}
        losses = record["history"][-1]["losses"]
        known = [float(losses[task]) / scales[task] for task in results.tasks if task in losses and scales.get(task)]
        if known:
            relative.append(known)
    return relative


def discrepancy(losses: list[list[float]]) -> Discrepancy | None:
    """The statistics of some seeds' losses; ``None`` if there is nothing finite.

    Example:
        >>> discrepancy([[1.0, 3.0], [2.0, 4.0]])
        Discrepancy(mean=2.5, deviation=1.0, lowest=1.5, highest=3.5)
    """
    seeds = [np.asarray(own) for own in losses if own and all(map(math.isfinite, own))]
    if not seeds:
        return None
    statistics = np.mean([[own.mean(), own.std(), own.min(), own.max()] for own in seeds], axis=0)
    return Discrepancy(*(float(value) for value in statistics))
