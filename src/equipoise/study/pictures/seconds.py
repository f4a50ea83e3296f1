"""What a step costs."""

from __future__ import annotations

from statistics import fmean

from matplotlib.figure import Figure

from equipoise.study.names import wrapped
from equipoise.study.pictures.dots import above_texts, dots
from equipoise.study.pictures.style import names_axis, single
from equipoise.study.results import Results

__all__ = ["seconds_picture"]


def seconds_picture(results: Results) -> Figure | None:
    """Milliseconds a step, the fastest method on top, with the ratio to the reference method."""
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
    axes.set_xlabel("milliseconds a step (median over the steps of a run)")
    return figure
