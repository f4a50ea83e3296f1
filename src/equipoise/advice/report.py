"""The page of an advice."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from equipoise.advice.advice import Advice
from equipoise.advice.candidates import PLAIN
from equipoise.diagnosis.page import Said, print_said, render_said, tables_of
from equipoise.study.pictures import Picture
from equipoise.study.pictures.style import ACCENT, BASELINE, dots, names_axis, single
from equipoise.study.report.paper import write_paper
from equipoise.study.report.words import SideTable, places
from equipoise.study.report.write import drawn
from equipoise.terminal import printed

__all__ = ["advice_paper", "print_advice", "write_page"]


def write_page(advice: Advice, folder: Path) -> tuple[Path, Path]:
    """Writes ``report.md``, ``report.html`` and the picture."""
    return render_said(_said(advice), folder, drawn(_PICTURES, advice, folder))


def advice_paper(advice: Advice, folder: Path) -> Path:
    """Writes the picture and tables for a paper; see :func:`~equipoise.study.report.paper.write_paper`."""
    return write_paper(folder, _PICTURES, advice, tables_of(_said(advice)))


def print_advice(advice: Advice, console: Console) -> None:
    """Prints the advice and its tables."""
    print_said(_said(advice), console)


def _said(advice: Advice) -> Said:
    first, *others = advice.sentences()
    facts = {
        "problem": advice.problem,
        "seeds that judged": ", ".join(map(str, advice.seeds)),
        "epochs": f"{advice.epochs} in the last rung, a half and a quarter of that in the two before",
        "learning rates": ", ".join(f"{rate:g}×" for rate in sorted({one["rate"] for one in advice.rungs[0]}))
        + ("" if advice.lr is None else f" {advice.lr:g}"),
        "diagnosis": "diagnosis/report.html",
    }
    tables = {"The last rung": _finalists(advice), "The race": _race(advice)}
    return printed(Said(f"{advice.problem}: advice", first, tuple(others), tables, facts))


def _finalists(advice: Advice) -> SideTable:
    digits = {metric.name: places(one.metrics[metric.name] for one in advice.entrants) for metric in advice.metrics}
    few = advice.metrics[:6]
    rows = []
    for place, one in enumerate(advice.entrants):
        p = advice.p.get(place, math.nan)
        rows.append(
            (
                one.label + " (the choice)" * (place == advice.choice),
                advice.rate(one),
                str(one.epochs),
                one.text(),
                "–" if math.isnan(p) else f"{p:.2g}",
                f"{one.price:.2f}×",
                *(f"{one.metrics[metric.name]:.{digits[metric.name]}f}".replace("-", "−") for metric in few),
            )
        )
    left = f" The first {len(few)} of {len(advice.metrics)} metrics are shown." if len(few) < len(advice.metrics) else ""
    return SideTable(
        ("method", "learning rate", "epochs", "change (%) ↓", "p", "a step", *(metric.heading for metric in few)),
        tuple(rows),
        (
            "Test split, means over the seeds that judge. Change: the mean over metrics of the relative change against plain "
            "training at its own best learning rate, ± standard deviation over seeds; below zero is better. Order: from the "
            "best on the validation split; entries with more epochs had the time of the best method.",
            "p: paired t test against plain training over the seeds, two-sided, corrected after Holm. A step: its time over "
            "plain training's, timed in turn on the same batches." + left,
        ),
    )


def _race(advice: Advice) -> SideTable:
    names = list(dict.fromkeys(one["candidate"] for one in advice.rungs[0]))
    rows = []
    for name in names:
        cells: list[str] = []
        for rung in advice.rungs:
            own = [
                one for one in rung if one["candidate"] == name and one["change"] is not None and math.isfinite(one["change"])
            ]
            if not own:
                cells += ["–", "–"]
                continue
            best = min(own, key=lambda one: float(one["change"]))
            cells += [f"{best['change']:+.1f}".replace("-", "−"), f"{best['rate']:g}×"]
        tried = sum(one["candidate"] == name for one in advice.rungs[0])
        rows.append((name, str(tried), *cells, "yes" if any(one.candidate == name for one in advice.entrants) else "no"))
    return SideTable(
        ("candidate", "tried", "first rung (%)", "its lr", "second rung (%)", "its lr", "last rung"),
        tuple(rows),
        (
            "Change against plain training at the problem's own learning rate (at another where that diverged) on the "
            "validation split, of the best that was "
            "tried. First rung: a quarter of the epochs, one seed; second: half of them, two seeds. Plain training and fixed "
            "weights go through to the end. What is slow to start can be lost in the first rung.",
        ),
    )


def _picture(advice: Advice) -> Figure | None:
    names = [f"{one.label}{'' if one.epochs == advice.epochs else f', {one.epochs} epochs'}" for one in advice.entrants]
    figure, axes = single(7.5, 1.3 + 0.45 * len(names))
    names_axis(axes, names)
    axes.axvline(0, color=BASELINE, linestyle="--", linewidth=1.2)
    colors = [BASELINE if one.candidate == PLAIN else ACCENT for one in advice.entrants]
    dots(
        axes, [list(one.test.values()) for one in advice.entrants], color=colors, texts=[one.text() for one in advice.entrants]
    )
    axes.set_xlabel("change against plain training (%), lower is better")
    return figure


_PICTURES: tuple[Picture[Advice], ...] = (
    Picture(
        "advice",
        "The last rung",
        "Filled: mean over the seeds that judge, with ± one standard deviation; open: the seeds. Dashed: plain training.",
        _picture,
    ),
)
