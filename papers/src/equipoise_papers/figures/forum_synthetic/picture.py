"""The optimality gap by initialisation, and FORUM's two measures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.study.pictures.style import COLOURS, STYLES, grid
from equipoise_papers.figures.forum_synthetic.run import Curves
from equipoise_papers.figures.forum_synthetic.settings import INITIALISATIONS, METHODS

__all__ = ["LABELS", "picture"]

LABELS = {"moml": "MOML", "moco": "MoCo", "forum": "FORUM"}
_FLOOR = 1e-24


def picture(curves: Sequence[Curves]) -> Figure:
    """Four panels with ℰ, a panel each with 𝒦 and q of FORUM."""
    figure, panels = grid(6, columns=3, width=3.4, height=2.9)
    gaps = [panels[0], panels[1], panels[3], panels[4]]
    for axes, start in zip(gaps, INITIALISATIONS, strict=True):
        for position, method in enumerate(METHODS):
            own = next(found for found in curves if found.method == method and found.start == start)
            _line(axes, own.gaps, COLOURS[position], LABELS[method])
        axes.set_title(_named(start))
        axes.set_ylabel(r"distance to the optimal set, $\mathcal{E}$" if axes in (panels[0], panels[3]) else "")
    gaps[0].legend(frameon=False, fontsize=9)
    for axes, what, label in (
        (panels[2], "stationarities", r"FORUM: stationarity $\mathcal{K}(z)$"),
        (panels[5], "constraints", r"FORUM: constraint $q(z)$"),
    ):
        for position, start in enumerate(INITIALISATIONS):
            own = next(found for found in curves if found.method == "forum" and found.start == start)
            # Two of them all but coincide; the dashes let both be seen.
            _line(axes, getattr(own, what), COLOURS[(position + 3) % len(COLOURS)], _named(start), STYLES[position])
        axes.set_title(label)
    panels[2].legend(frameon=False, fontsize=8)
    for axes in panels[3:]:
        axes.set_xlabel("outer step $k$")
    return figure


def _line(axes: Axes, values: Sequence[float], colour: str, label: str, style: str = "-") -> None:
    axes.plot([max(value, _FLOOR) for value in values], style, color=colour, linewidth=1.5, label=label)
    axes.set_yscale("log")


def _named(start: tuple[float, tuple[float, float]]) -> str:
    alpha, omega = start
    return rf"$\alpha_0 = {alpha:g},\ \omega_0 = ({omega[0]:g}, {omega[1]:g})$"
