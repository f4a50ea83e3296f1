"""In how many steps tasks conflict, with and without teleports (Figure 5a of the COST paper)."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from equipoise.study.names import wrapped
from equipoise.study.pictures.panels import legend
from equipoise.study.pictures.style import GREY, epochs_axis, grid, percent
from equipoise.study.pictures.teleporting import WITH, WITHOUT, note_what_is_left_out, shown
from equipoise.study.results import Results

__all__ = ["teleport_conflicts_picture"]


def teleport_conflicts_picture(results: Results) -> Figure | None:
    """One panel a method that teleports: its share of conflicting steps, and that of its counterpart without."""
    names = [name for name in shown(results, attempted=False) if _any(results.curve(name, "conflicts", "smallest"))]
    if not names:
        return None
    figure, panels = grid(len(names), columns=3, width=3.0, height=2.6, sharex=True, sharey=True)
    for position, (name, axes) in enumerate(zip(names, panels, strict=True)):
        epochs_axis(axes, results.epochs, labelled=position + 3 >= len(names))
        axes.set_title(wrapped(results.short(name), 28), loc="left", fontsize=10, fontweight="bold")
        if position % 3 == 0:
            axes.set_ylabel("share of steps")
        for method, colour in ((results.counterpart(name), WITHOUT), (name, WITH)):
            if method is None:
                continue
            for measure, style in (("smallest", "-"), ("any", ":")):
                curve = results.curve(method, "conflicts", measure)
                # The lower line is wider, so that lines that coincide are still seen to be two.
                width = (1.8 if measure == "smallest" else 1.4) + (1.4 if method != name else 0)
                look = {"color": colour, "linestyle": style, "linewidth": width}
                marker = "o" if len(curve) == 1 else None
                axes.plot(range(1, len(curve) + 1), curve, marker=marker, markersize=4, zorder=3, **look)  # type: ignore[arg-type]
        percent(axes)
    note_what_is_left_out(figure, results, names)
    legend(
        figure,
        [
            ("with teleports", WITH, "-"),
            ("without", WITHOUT, "-"),
            ("the smallest gradient conflicts", GREY, "-"),
            ("any task does", GREY, ":"),
        ],
    )
    return figure


def _any(curve: list[float]) -> bool:
    return any(map(math.isfinite, curve))
