"""Runs the experiment and writes what came out: picture, table, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.markdown import table
from equipoise.study.pictures.style import COLORS, STYLES, grid
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.forum_synthetic.run import Curves, run
from equipoise_papers.figures.forum_synthetic.settings import INITIALIZATIONS, METHODS, ForumSyntheticSettings
from equipoise_papers.figures.outputs import made_folder, write_outputs

__all__ = ["LABELS", "make", "picture"]

_REACHED = 1e-3


def make(settings: ForumSyntheticSettings, folder: Path, told: Told = silent) -> str:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: takes a line now and then.

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


def _table(curves: Sequence[Curves], settings: ForumSyntheticSettings) -> str:
    rows = []
    for own in curves:
        alpha, omega = own.start
        since = _since(own.gaps)
        rows.append(
            [
                LABELS[own.method],
                f"{alpha:g}",
                f"({omega[0]:g}, {omega[1]:g})",
                f"{own.end[0]:.3f}",
                f"{own.gaps[-1]:.1e}",
                "never" if since is None else str(since),
                f"{own.constraints[-1]:.1e}",
                f"{own.stationarities[-1]:.1e}" if own.stationarities else "–",
            ]
        )
    head = ["method", "α_0", "ω_0", "α in the end", "distance ℰ", f"below {_REACHED:g} since step", "q(z)", "𝒦(z)"]
    lines = [
        table(head, rows),
        "",
        f"{settings.steps} outer steps of gradient descent at μ = {settings.lr:g}, T = {settings.lower_steps} lower "
        f"steps at η = {settings.lower_lr:g}, {settings.start} start, ρ = {settings.rho:g}.",
        "",
    ]
    return "\n".join(lines)


def _since(gaps: Sequence[float]) -> int | None:
    """The first step from which on the distance stays small."""
    above = [step for step, gap in enumerate(gaps) if not gap < _REACHED]
    first = above[-1] + 1 if above else 0
    return first if first < len(gaps) else None


LABELS = {"moml": "MOML", "moco": "MoCo", "forum": "FORUM"}
_FLOOR = 1e-24


def picture(curves: Sequence[Curves]) -> Figure:
    """Four panels with ℰ, and one each with 𝒦 and q of FORUM."""
    figure, panels = grid(6, columns=3, width=3.4, height=2.9)
    gaps = [panels[0], panels[1], panels[3], panels[4]]
    for axes, start in zip(gaps, INITIALIZATIONS, strict=True):
        for position, method in enumerate(METHODS):
            own = next(found for found in curves if found.method == method and found.start == start)
            _line(axes, own.gaps, COLORS[position], LABELS[method])
        axes.set_title(_named(start))
        axes.set_ylabel(r"distance to the optimal set, $\mathcal{E}$" if axes in (panels[0], panels[3]) else "")
    gaps[0].legend(frameon=False, fontsize=9)
    for axes, what, label in (
        (panels[2], "stationarities", r"FORUM: stationarity $\mathcal{K}(z)$"),
        (panels[5], "constraints", r"FORUM: constraint $q(z)$"),
    ):
        for position, start in enumerate(INITIALIZATIONS):
            own = next(found for found in curves if found.method == "forum" and found.start == start)
            # Two of them all but coincide; the dashes let both be seen.
            _line(axes, getattr(own, what), COLORS[(position + 3) % len(COLORS)], _named(start), STYLES[position])
        axes.set_title(label)
    panels[2].legend(frameon=False, fontsize=8)
    for axes in panels[3:]:
        axes.set_xlabel("outer step $k$")
    return figure


def _line(axes: Axes, values: Sequence[float], color: str, label: str, style: str = "-") -> None:
    axes.plot([max(value, _FLOOR) for value in values], style, color=color, linewidth=1.5, label=label)
    axes.set_yscale("log")


def _named(start: tuple[float, tuple[float, float]]) -> str:
    alpha, omega = start
    return rf"$\alpha_0 = {alpha:g},\ \omega_0 = ({omega[0]:g}, {omega[1]:g})$"
