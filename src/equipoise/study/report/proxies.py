"""The table of proxy Gramians: where each was taken, and what its audits said."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from equipoise.metrics.metric import mean
from equipoise.study.report.words import SideTable
from equipoise.study.results import Results

__all__ = ["proxy_table"]


def proxy_table(results: Results) -> SideTable | None:
    """Gathers what the report says on proxies; ``None`` where no run formed an exact Gramian beside one."""
    found = {method: results.audits(method) for method in results.ranking()}
    rows = [_row(results, method, audits) for method, audits in found.items() if any(audits.values())]
    if not rows:
        return None
    columns = (
        "method",
        "looked at",
        "audits per run",
        "cosine of directions, mean",
        "least",
        "cosine of weights, mean",
        "time",
    )
    notes = (
        "An audit forms the exact Gramian of its batch; the cosines are between the proxy's answer and the exact one. Time: "
        "the median step's over that of the same method with the exact Gramian, where there are solo runs (--jobs 1) of both.",
    )
    return SideTable(columns, tuple(rows), notes)


def _row(results: Results, method: str, audits: dict[int, list[dict[str, Any]]]) -> tuple[str, ...]:
    every = [audit for own in audits.values() for audit in own]
    sources = Counter(str(audit["source"]) for audit in every)
    directions = [float(audit["direction"]) for audit in every if audit["direction"] is not None]
    weights = [float(audit["weights"]) for audit in every if audit["weights"] is not None]
    exact = method.partition("@")[0]
    ratio = math.nan
    if exact != method and exact in results.methods and results.seconds(method) and results.seconds(exact):
        ratio = mean(results.seconds(method)) / mean(results.seconds(exact))
    return (
        method,
        ", ".join(sources),
        f"{len(every) / len(audits):.3g}",
        f"{mean(directions):.3f}" if directions else "–",
        f"{min(directions):.3f}" if directions else "–",
        f"{mean(weights):.3f}" if weights else "–",
        f"{ratio:.2f}×" if math.isfinite(ratio) else "–",
    )
