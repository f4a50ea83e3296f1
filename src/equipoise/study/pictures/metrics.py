"""Every metric on its own, with single-task training as the reference line."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equipoise.study.pictures.dots import dots
from equipoise.study.pictures.style import BASELINE, grid, names_axis
from equipoise.study.results import Results

__all__ = ["metrics_picture"]

_COLUMNS = 4


def metrics_picture(results: Results) -> Figure | None:
    """Small multiples, one a metric, the methods in the order of their Δm."""
    if not results.methods:
        return None
    names = results.ranking()
    figure, panels = grid(len(results.metrics), columns=_COLUMNS, width=2.7, height=1.2 + 0.27 * len(names))
    baseline = results.baseline()
    for position, (axes, metric) in enumerate(zip(panels, results.metrics, strict=True)):
        names_axis(axes, [results.short(name) for name in names], labelled=position % _COLUMNS == 0)
        single = baseline.get(metric.name)
        if single is not None and math.isfinite(single.mean):
            axes.axvline(single.mean, color=BASELINE, linestyle="--", linewidth=1.2)
            if math.isfinite(single.std):
                axes.axvspan(single.mean - single.std, single.mean + single.std, color=BASELINE, alpha=0.15, linewidth=0)
        dots(axes, [list(results.values(name, metric).values()) for name in names])
        axes.set_title(f"{metric.quantity}\n{'higher' if metric.higher_is_better else 'lower'} is better", fontsize=10)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    figure.supxlabel("dashed: single-task training, mean ± standard deviation over seeds", fontsize=9, color=BASELINE)
    return figure
