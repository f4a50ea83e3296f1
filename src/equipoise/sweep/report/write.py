"""Writes ``report.md``, ``report.html`` and the picture."""

from __future__ import annotations

from pathlib import Path

from equipoise.study.pictures import Picture
from equipoise.study.report.write import drawn, render
from equipoise.sweep.outcome import Outcome
from equipoise.sweep.report.content import content
from equipoise.sweep.report.picture import front_picture

__all__ = ["write_report"]

_PICTURES = (
    Picture(
        "front",
        "Pareto front",
        "Test split, last epoch. Crosses: trials of the search, on the search's seed. Squares with a number: trials that were "
        "trained again on fresh seeds, mean over seeds; the line joins those that no other one dominates, and what lies behind "
        "it is dominated by the sweep. Circles: the compared methods, mean over seeds. Small marks of "
        "the same colour: the seeds. Dotted: single-task training.",
        front_picture,
    ),
)


def write_report(outcome: Outcome) -> tuple[Path, Path]:
    """Writes the report into the sweep's folder.

    Args:
        outcome: of a sweep's folder.

    Returns:
        Paths of ``report.md`` and of ``report.html``, which holds its picture and needs no other file.
    """
    folder = outcome.folder.path
    pictures = drawn(_PICTURES, outcome, folder)
    return render("sweep", folder, package="equipoise.sweep", said=content(outcome), pictures=pictures)
