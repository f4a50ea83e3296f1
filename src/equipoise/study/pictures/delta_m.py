"""Δm of every method, with error bars and seeds."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from equipoise.metrics import spread
from equipoise.study.pictures.dots import dots
from equipoise.study.pictures.style import BASELINE, names_axis, single
from equipoise.study.results import Results

__all__ = ["delta_m_picture"]


def delta_m_picture(results: Results) -> Figure | None:
    """The methods sorted by mean Δm; none if there is no Δm."""
    if results.obstacle() or not results.methods:
        return None
    names = results.ranking()
    values = [list(results.delta_m(name).values()) for name in names]
    texts = ["–" if math.isnan(own.mean) else own.text(1, sign=True) for own in map(spread, values)]
    figure, axes = single(7.5, 1.3 + 0.38 * len(names))
    names_axis(axes, [results.short(name) for name in names])
    axes.axvline(0, color=BASELINE, linestyle="--", linewidth=1.2)
    dots(axes, values, texts=texts)
    axes.annotate(
        "single-task training",
        (0, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, 3),
        textcoords="offset points",
        color=BASELINE,
        fontsize=9,
    )
    axes.set_xlabel("Δm (%), lower is better: mean relative drop against single-task training")
    return figure
