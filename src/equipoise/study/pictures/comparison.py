"""Pictures of how the methods compare at the end: Δm, each metric, seconds."""

from __future__ import annotations

import math
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equipoise.metrics import spread
from equipoise.study.names import wrapped
from equipoise.study.pictures.style import BASELINE, above_texts, dots, grid, names_axis, single
from equipoise.study.results import Results

__all__ = ["delta_m_picture", "metrics_picture", "seconds_picture"]


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


_COLUMNS = 4


def metrics_picture(results: Results) -> Figure | None:
    """Small multiples, one per metric, the methods in the order of their Δm."""
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


def seconds_picture(results: Results) -> Figure | None:
    """Milliseconds per step, the fastest method on top, with the ratio to the reference method."""
    if not results.methods:
        return None
    milliseconds = {name: [value * 1e3 for value in results.seconds(name)] for name in results.methods}
    names = sorted(milliseconds, key=lambda name: fmean(milliseconds[name]))
    unit = fmean(milliseconds[results.reference])
    texts = [f"{fmean(milliseconds[name]):.1f} ms   {fmean(milliseconds[name]) / unit:.2f}×" for name in names]
    figure, axes = single(7.5, 1.1 + 0.38 * len(names))
    names_axis(axes, [results.short(name) for name in names])
    dots(axes, [milliseconds[name] for name in names], texts=texts)
    axes.set_xlim(left=0)
    above_texts(axes, f"mean, and its ratio to {wrapped(results.reference, 20)}")
    axes.set_xlabel("milliseconds per step (median over the steps of a run)")
    return figure
