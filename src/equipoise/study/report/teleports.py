"""The table of teleports: how many were attempted, what became of them, and what they cost."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from equipoise.metrics.metric import mean
from equipoise.study.report.words import SideTable, brief
from equipoise.study.results import Results
from equipoise.teleport import TeleportReport

__all__ = ["kind", "teleport_table"]

_KINDS = (("finite", "not finite"), ("the losses change", "losses changed"), ("the conflict gets worse", "conflict worse"))


def teleport_table(results: Results) -> SideTable | None:
    """Gathers what the report says on teleports; ``None`` where no method teleports."""
    names = results.teleporting()
    if not names:
        return None
    columns = (
        "method",
        "Δm against without",
        "attempts per run",
        "accepted",
        "refused, and why",
        "loss change, size",
        "loss change, sign",
        "cosine, accepted",
        "cosine, all",
        "gradient norms",
        "σ",
        "share of time",
    )
    return SideTable(columns, tuple(_row(results, name) for name in names), tuple(_notes(results)))


def kind(reason: str) -> str:
    """What kind of reason a refusal gives, without its numbers.

    Example:
        >>> kind("the losses change by 31.2% on held-out batches, more than the tolerance of 5.0%")
        'losses changed'
        >>> kind("the loss of ink became non-finite"), kind("gave up after 12.5 s")
        ('not finite', 'gave up after … s')
    """
    for words, short in _KINDS:
        if words in reason:
            return short
    return re.sub(r"[-+−]?\d[\d.,]*(?:e[-+]?\d+)?", "…", reason)


def _row(results: Results, name: str) -> tuple[str, ...]:
    runs = results.teleports(name)
    every = [report for reports in runs.values() for report in reports]
    accepted = [report for report in every if report.accepted]
    refused = Counter(kind(report.reason) for report in every if not report.accepted)
    why = ", ".join(f"{reason} {count}" for reason, count in refused.most_common())
    seconds = results.epoch_seconds(name, solo=False)  # a share of the same run's time
    trained = results.epochs * len(seconds) * mean(seconds.values()) if seconds else 0.0
    spent = [report.seconds for seed in seconds for report in runs[seed]]
    teleported = len(spent) * mean(spent) if spent else 0.0
    sizes = _mean(abs(change) for report in accepted for change in report.changes)
    signs = _mean(change for report in accepted for change in report.changes)
    return (
        name,
        _gain(results, name),
        f"{len(every) / len(runs):.1f}" + ("" if every else _why_none(results, name)) if runs else "–",
        f"{len(accepted)} ({len(accepted) / len(every):.0%})" if every else "0",
        f"{len(every) - len(accepted)}" + (f": {why}" if why else ""),
        _text(sizes, ".1%"),
        _text(signs, "+.1%"),
        _cosines(accepted),
        _cosines([report for report in every if math.isfinite(report.measure_after)]),
        _growth(accepted),
        _text(_mean(report.sigma for report in accepted), "+.3f"),
        _text(teleported / trained, ".1%") if trained else "–",
    )


def _why_none(results: Results, name: str) -> str:
    """Why a method made no attempt at all: what stood in the way after how many steps, over all seeds."""
    waits: Counter[str] = Counter()
    for record in results.records(name).values():
        waits.update(record.get("waits") or {})
    return "".join(f"{', ' if place else ': '}{why} {count}" for place, (why, count) in enumerate(waits.most_common()))


def _gain(results: Results, name: str) -> str:
    """Difference in Δm from the same method without teleports, and its corrected p-value."""
    compared = results.teleport_comparisons().get(name)
    if compared is None:
        return "–"
    comparison, p = compared
    return f"{_text(comparison.difference, '+.1f')} ({brief(comparison, p)})"


def _cosines(reports: Sequence[TeleportReport]) -> str:
    before, after = _mean(-report.measure_before for report in reports), _mean(-report.measure_after for report in reports)
    return f"{_text(before, '+.2f')} → {_text(after, '+.2f')}" if reports else "–"


def _growth(reports: Sequence[TeleportReport]) -> str:
    """What the norms of the task gradients were multiplied by, the geometric mean."""
    grown = [math.log(report.growth) for report in reports if math.isfinite(report.growth)]
    return f"×{math.exp(mean(grown)):.3f}" if grown else "–"


def _notes(results: Results) -> Iterable[str]:
    compared = results.teleport_comparisons()
    if compared:
        yield (
            "Δm against without: mean difference in Δm (percentage points, below zero is better) between a method and the same "
            "method without teleports, paired by seed, two-sided t test, corrected after Holm for "
            f"{len(compared)} comparison{'s' * (len(compared) > 1)}."
        )
    yield (
        "Attempts per run: mean over seeds; where there was none, what stood in the way after how many steps. Accepted and "
        "refused: all seeds together. Loss change: relative change of each task's loss on the batches that judge a landing, "
        "mean over tasks and accepted attempts, as a size and with its sign. Cosine: the one that the trigger looks at, before "
        "→ after, below zero is conflict; for few tasks that of the smallest task gradient with the mean gradient. "
        "Gradient norms: what those of the task gradients were multiplied by on the same batches, the geometric mean over "
        "tasks and accepted attempts; eq. 6 of the COST paper seeks more than 1. σ: cosine of the accepted moves with the "
        "combined gradient before them (eq. 12)."
    )
    yield (
        "A guard accepts an attempt because of these very numbers, so the numbers of accepted attempts look too "
        "good; the cosines of all attempts do not. Only Δm says whether training gained."
    )
    yield (
        "Share of time: of all optimizer steps' time, spent in the attempts. Gramians that were formed only to look for "
        "conflict are not counted."
    )


def _mean(values: Iterable[float]) -> float:
    return mean(value for value in values if math.isfinite(value))


def _text(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form).replace("-", "−")
