"""The numbers behind the figures, as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from equipoise_papers.figures.asmg.settings import Run, Settings

__all__ = ["table"]


def table(settings: Settings, results: Mapping[Run, dict[str, Any]]) -> str:
    """A row a panel, a column a method: median of the final ℰ over the seeds, or when the last of them fell below 1e-4."""
    lines = [
        "| problem | d | N | " + " | ".join(settings.methods) + " |",
        "| :-- | --: | --: |" + " --: |" * len(settings.methods),
    ]
    for cell in settings.by_samples() + settings.by_dimension():
        cells = [_cell([results[Run(cell, method, seed)] for seed in settings.seeds]) for method in settings.methods]
        lines.append(f"| {cell.problem} | {cell.dimension} | {cell.samples} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(runs: list[dict[str, Any]]) -> str:
    reached = [run["reached"] for run in runs if run["reached"] is not None]
    if len(reached) == len(runs):
        return f"**< 1e-4** at {max(reached)}"
    finals = [run["final"] for run in runs]
    if any(value is None for value in finals):
        return "not finite"
    middle = statistics.median(finals)
    last = min(run["iterations"][-1] for run in runs)
    stopped = f", stopped at {last}" if any(run["ended"] == "seconds" for run in runs) else ""
    return f"{middle:.1e}{stopped}"
