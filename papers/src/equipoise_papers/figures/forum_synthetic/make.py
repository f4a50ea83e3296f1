"""Runs the experiment and writes what came out: picture, table, numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from equipoise_papers.figures.folder import made_folder, write_outputs
from equipoise_papers.figures.forum_synthetic.picture import LABELS, picture
from equipoise_papers.figures.forum_synthetic.run import Curves, run
from equipoise_papers.figures.forum_synthetic.settings import Settings

__all__ = ["make"]

_REACHED = 1e-3


def make(settings: Settings, folder: Path, told: Callable[[str], None] = lambda line: None) -> str:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: called with a line now and then.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made.
    """
    made_folder(folder)
    curves = run(settings, told)
    text = _table(curves, settings)
    numbers = {"settings": asdict(settings), "curves": [asdict(own) for own in curves]}
    write_outputs(folder, "forum-synthetic", {"": picture(curves)}, text, numbers)
    return text


def _table(curves: Sequence[Curves], settings: Settings) -> str:
    lines = [
        f"| method | α_0 | ω_0 | α in the end | distance ℰ | below {_REACHED:g} since step | q(z) | 𝒦(z) |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for own in curves:
        alpha, omega = own.start
        since = _since(own.gaps)
        lines.append(
            f"| {LABELS[own.method]} | {alpha:g} | ({omega[0]:g}, {omega[1]:g}) | {own.end[0]:.3f} | {own.gaps[-1]:.1e} | "
            f"{'never' if since is None else since} | {own.constraints[-1]:.1e} | "
            f"{f'{own.stationarities[-1]:.1e}' if own.stationarities else '–'} |"
        )
    lines += [
        "",
        f"{settings.steps} outer steps of gradient descent at μ = {settings.step_size:g}, T = {settings.lower_steps} lower "
        f"steps at η = {settings.lower_step_size:g}, {settings.start} start, ρ = {settings.rho:g}.",
        "",
    ]
    return "\n".join(lines)


def _since(gaps: Sequence[float]) -> int | None:
    """The first step from which on the distance stays small."""
    above = [step for step, gap in enumerate(gaps) if not gap < _REACHED]
    first = above[-1] + 1 if above else 0
    return first if first < len(gaps) else None
