"""What an epoch costs with and without teleports (Figure 11 of the COST paper)."""

from __future__ import annotations

import math
from statistics import fmean

from matplotlib.figure import Figure

from equipoise.study.pictures.dots import above_texts, dots
from equipoise.study.pictures.style import names_axis, single
from equipoise.study.pictures.teleporting import WITH, WITHOUT
from equipoise.study.results import Results

__all__ = ["teleport_seconds_picture"]


def teleport_seconds_picture(results: Results) -> Figure | None:
    """Seconds an epoch of each method that teleports, below its counterpart without, and their ratio."""
    names: list[str] = []
    for name in results.teleporting():
        names += [own for own in (results.counterpart(name), name) if own is not None and own not in names]
    seconds = {name: list(results.epoch_seconds(name).values()) for name in names}
    names = [name for name in names if seconds[name]]
    teleporting = [name for name in names if name in results.teleporting()]
    if not teleporting:
        return None
    figure, axes = single(7.5, 1.2 + 0.38 * len(names))
    names_axis(axes, [results.short(name) for name in names])
    dots(
        axes,
        [seconds[name] for name in names],
        colour=[WITH if name in teleporting else WITHOUT for name in names],
        texts=[f"{fmean(seconds[name]):.2f} s" + _ratio(results, name, seconds) for name in names],
    )
    axes.set_xlim(left=0)
    compared = any(results.counterpart(name) in names for name in teleporting)
    above_texts(axes, "mean, and its ratio to\nthe same without teleports" if compared else "mean")
    axes.set_xlabel("seconds an epoch (steps and teleports; mean over the epochs of a run)")
    return figure


def _ratio(results: Results, name: str, seconds: dict[str, list[float]]) -> str:
    other = results.counterpart(name)
    unit = fmean(seconds[other]) if other is not None and seconds.get(other) else math.nan
    return "" if math.isnan(unit) or unit == 0 else f"   {fmean(seconds[name]) / unit:.2f}×"
