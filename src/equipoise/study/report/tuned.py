"""What a study chose on the validation split, and from what."""

from __future__ import annotations

import math
from typing import Any

from equipoise.metrics import delta_m
from equipoise.study.report.words import SideTable
from equipoise.study.results import Results
from equipoise.study.tuning import TUNED, TUNING_SEED

__all__ = ["rate_table", "rate_text", "weights_text"]


def rate_text(results: Results, method: str) -> str:
    """The learning rate of a method's runs; a dash for the problem's own."""
    rates = sorted({record["run"].get("lr") for record in results.records(method).values()} - {None})
    return ", ".join(f"{rate:g}" for rate in rates) or "–"


def weights_text(results: Results) -> str:
    """The tuned weights with the tasks' names, and how they came about; nothing where none were tuned."""
    tuned = results.configuration["tuned"]
    if "weights" not in tuned:
        return ""
    named = ", ".join(f"{task} {weight:g}" for task, weight in zip(results.tasks, tuned["weights"], strict=True))
    return f"{named}: the best Δm on the validation split of {tuned['trials']} trials with seed {TUNING_SEED}"


def rate_table(results: Results) -> SideTable | None:
    """Each method's Δm on the validation split at each learning rate; ``None`` where rates were not chosen."""
    rates, tuned = results.configuration["lr"], results.configuration["tuned"]
    chosen = tuned.get("lr", {})
    rows = [method for method in results.ranking() if method in chosen and method != TUNED]
    if len(rates) < 2 or not rows:
        return None
    tried = results.tuning()
    texts = [
        (method, *(_shown(tried.get((method, rate)), tuned["baseline"], results) for rate in rates), f"{chosen[method]:g}")
        for method in rows
    ]
    edges = [method for method in rows if chosen[method] in (min(rates), max(rates))]
    notes = [
        f"Δm (%) on the validation split with seed {TUNING_SEED}, of one run each; the least one was chosen. Single-task "
        "training was tuned likewise: "
        + ", ".join(f"{task} {chosen[f'stl:{task}']:g}" for task in results.tasks if f"stl:{task}" in chosen)
    ]
    if edges:
        notes.append(f"At the edge of what was tried, so that the best may lie beyond: {', '.join(edges)}.")
    return SideTable(("method", *(f"lr {rate:g}" for rate in rates), "chosen"), tuple(texts), tuple(notes))


def _shown(validation: dict[str, Any] | None, baseline: dict[str, float], results: Results) -> str:
    if validation is None:
        return "failed"
    numbers = {name: math.nan if value is None else float(value) for name, value in validation.items()}
    drop = delta_m(numbers, baseline, results.metrics)
    return "–" if math.isnan(drop) else f"{drop:+.1f}".replace("-", "−")
