"""Pictures of studies in which a method teleports: what the teleports changed, sought and cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from equipoise.metrics.metric import mean
from equipoise.study.names import shortened, wrapped
from equipoise.study.pictures.style import (
    COLORS,
    GREY,
    INK,
    above_texts,
    dots,
    epochs_axis,
    grid,
    is_leftmost,
    is_lowest,
    legend,
    log_scale,
    names_axis,
    percent,
    single,
)
from equipoise.study.results import Results
from equipoise.teleport import TeleportReport

__all__ = [
    "ACCEPTED",
    "REFUSED",
    "WITH",
    "WITHOUT",
    "attempts",
    "legend_of",
    "note_what_is_left_out",
    "rows",
    "shown",
    "task_colors",
    "teleport_changes_picture",
    "teleport_conflicts_picture",
    "teleport_searches_picture",
    "teleport_seconds_picture",
]

ACCEPTED = COLORS[2]
REFUSED = GREY
WITH = COLORS[1]  # a method with its teleport …
WITHOUT = COLORS[0]  # … and without
_ROWS = 6  # more methods than that would not be looked at
_WIDTH = 4.0  # inches per panel
_TITLE = 52  # characters above a panel


def shown(results: Results, *, attempted: bool = True) -> list[str]:
    """The methods that get a row, best first."""
    names = [name for name in results.teleporting() if not attempted or any(results.teleports(name).values())]
    return names[:_ROWS]


def attempts(results: Results, method: str) -> list[TeleportReport]:
    """All attempts of a method over all seeds."""
    return [report for reports in results.teleports(method).values() for report in reports]


def rows(results: Results, names: Sequence[str], *, height: float = 2.6) -> tuple[Figure, Iterator[tuple[str, Axes, Axes]]]:
    """A figure with one row per method: its name, the left panel and the right panel."""
    figure, panels = grid(2 * len(names), columns=2, width=_WIDTH, height=height)
    for name, axes in zip(names, panels[::2], strict=True):
        axes.set_title(shortened(results.short(name), _TITLE), loc="left", fontsize=10, fontweight="bold")
    note_what_is_left_out(figure, results, names)
    return figure, zip(names, panels[::2], panels[1::2], strict=True)


def note_what_is_left_out(figure: Figure, results: Results, names: Sequence[str]) -> None:
    """Says below the panels that not all methods are shown, where that is so."""
    left_out = len(results.teleporting()) - len(names)
    if left_out > 0 and len(names) == _ROWS:
        note = f"the {_ROWS} teleporting methods with the lowest Δm; {left_out} more are in the table only"
        figure.supxlabel(note, fontsize=9, color="#666666")


def task_colors(results: Results) -> dict[str, str]:
    """One colour per task; one for all where there are too many tasks to tell them apart."""
    few = len(results.tasks) <= len(COLORS)
    return {task: COLORS[position] if few else COLORS[0] for position, task in enumerate(results.tasks)}


def legend_of(figure: Figure, entries: Sequence[tuple[str, dict[str, object]]], *, margins: int = 6) -> None:
    """One legend above all panels, of texts with the properties of the line or mark that each stands for.

    ``margins`` is how many characters a mark takes with the room about it.
    """
    marks = [Line2D([], [], **{"linestyle": "none", **look}) for _, look in entries]  # type: ignore[arg-type]
    # As many side by side as fit: a character takes about a fourteenth of an inch.
    room = figure.get_figwidth() * 14
    columns = len(entries)
    while columns > 1 and sum(sorted((len(text) + margins for text, _ in entries), reverse=True)[:columns]) > room:
        columns -= 1
    figure.legend(
        marks,
        [text for text, _ in entries],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=1.8,
    )


_BETTER, _WORSE = "#E3F2EA", "#FBE6E0"


def teleport_changes_picture(results: Results) -> Figure | None:
    """One row per method: cosines after against before, and the ratio of norms over training; one mark per task and attempt."""
    names = [name for name in shown(results) if any(report.cosines_after for report in attempts(results, name))]
    if not names:
        return None
    figure, panels = rows(results, names, height=3.5)
    colors = task_colors(results)
    for name, cosines, norms in panels:
        reports = [report for report in attempts(results, name) if report.cosines_after]
        _cosines(cosines, reports, colors)
        _norms(norms, reports, colors)
    few = len(set(colors.values())) == len(colors)
    tasks = [(task, color) for task, color in colors.items()] if few else [("accepted, one mark per task", COLORS[0])]
    legend_of(
        figure,
        [
            *((task, {"marker": "o", "color": color, "markersize": 5}) for task, color in tasks),
            ("refused", {"marker": "o", "markerfacecolor": "none", "color": REFUSED, "markersize": 4}),
        ],
    )
    return figure


def _cosines(axes: Axes, reports: list[TeleportReport], colors: dict[str, str]) -> None:
    axes.fill([-1.05, 0, 0, -1.05], [0, 0, 1.05, 1.05], color=_BETTER, linewidth=0, zorder=0)
    axes.fill([0, 1.05, 1.05, 0], [-1.05, -1.05, 0, 0], color=_WORSE, linewidth=0, zorder=0)
    axes.plot([-1.05, 1.05], [-1.05, 1.05], color=GREY, linewidth=1, zorder=1)
    for x, y, text, align in ((-1.0, 0.96, "conflict ended", "left"), (1.0, -0.96, "conflict began", "right")):
        axes.text(x, y, text, ha=align, va="top" if y > 0 else "bottom", fontsize=8, color="#666666")
    _marks(axes, [(report, report.cosines_before, report.cosines_after) for report in reports], colors)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("cosine with the mean gradient, before")
    axes.set_ylabel("after")


def _norms(axes: Axes, reports: list[TeleportReport], colors: dict[str, str]) -> None:
    axes.axhline(1, color=GREY, linewidth=1, zorder=1)
    ratios = [
        tuple(after / before if before > 0 else math.nan for before, after in zip(r.norms_before, r.norms_after, strict=True))
        for r in reports
    ]
    _marks(axes, [(report, [report.step] * len(own), own) for report, own in zip(reports, ratios, strict=True)], colors)
    finite = [value for own in ratios for value in own if math.isfinite(value) and value > 0]
    if finite:
        # 1 in the middle: more and less are seen to be as likely as they are.
        reach = 1.15 * max(1.05, max(finite), 1 / min(finite))
        axes.set_ylim(1 / reach, reach)
        log_scale(axes)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xlabel("step of the attempt")
    axes.set_ylabel("gradient norm, after / before")


def _marks(axes: Axes, entries: list[tuple[TeleportReport, object, object]], colors: dict[str, str]) -> None:
    for accepted in (False, True):
        chosen = [
            (x, y, colors[task])
            for report, before, after in entries
            if report.accepted == accepted
            for task, x, y in zip(report.tasks, before, after, strict=True)  # type: ignore[call-overload]
        ]
        if not chosen:
            continue
        xs, ys, own = zip(*chosen, strict=True)
        if accepted:
            axes.scatter(xs, ys, s=22, c=own, edgecolors="white", linewidths=0.5, zorder=4)
        else:
            axes.scatter(xs, ys, s=14, facecolors="none", edgecolors=REFUSED, linewidths=0.9, zorder=3)


def teleport_conflicts_picture(results: Results) -> Figure | None:
    """One panel per method that teleports: its share of conflicting steps, and that of its counterpart without."""
    names = [name for name in shown(results, attempted=False) if _any(results.curve(name, "conflicts", "smallest"))]
    if not names:
        return None
    figure, panels = grid(len(names), columns=3, width=3.0, height=2.6, sharex=True, sharey=True)
    for name, axes in zip(names, panels, strict=True):
        epochs_axis(axes, results.epochs, labelled=is_lowest(axes, panels))
        axes.set_title(wrapped(results.short(name), 28), loc="left", fontsize=10, fontweight="bold")
        if is_leftmost(axes):
            axes.set_ylabel("share of steps")
        for method, color in ((results.counterpart(name), WITHOUT), (name, WITH)):
            if method is None:
                continue
            for measure, style in (("smallest", "-"), ("any", ":")):
                curve = results.curve(method, "conflicts", measure)
                # The lower line is wider, so that lines that coincide are still seen to be two.
                width = (1.8 if measure == "smallest" else 1.4) + (1.4 if method != name else 0)
                look = {"color": color, "linestyle": style, "linewidth": width}
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


_LINES = 80  # per method; more would be one grey area
_ACCEPTED_LINE = "#8FCBB5"  # ACCEPTED, but light enough for many of them


def teleport_searches_picture(results: Results) -> Figure | None:
    """One row per method: L_t and L_g before each inner step, one line per attempt, and their means."""
    names = [name for name in shown(results) if any(report.invariance for report in attempts(results, name))]
    if not names:
        return None
    figure, panels = rows(results, names)
    for name, left, right in panels:
        reports = attempts(results, name)
        for axes, lines, quantity in (
            (left, [report.invariance for report in reports], "L_t, change of the losses"),
            (right, [report.reward for report in reports], "L_g, what is rewarded"),
        ):
            _panel(axes, reports, lines)
            axes.set_ylabel(quantity)
    legend_of(
        figure,
        [
            ("mean of the accepted", {"linestyle": "-", "color": ACCEPTED, "linewidth": 2.2}),
            ("mean of all", {"linestyle": "--", "color": INK, "linewidth": 1.6}),
            ("accepted", {"linestyle": "-", "color": _ACCEPTED_LINE, "linewidth": 0.9}),
            ("refused", {"linestyle": "-", "color": REFUSED, "linewidth": 0.9}),
        ],
    )
    return figure


def _panel(axes: Axes, reports: Sequence[TeleportReport], lines: Sequence[Sequence[float]]) -> None:
    stride = math.ceil(len(lines) / _LINES)
    for report, line in list(zip(reports, lines, strict=True))[::stride]:
        color = _ACCEPTED_LINE if report.accepted else REFUSED
        axes.plot(range(len(line)), line, color=color, linewidth=0.8, alpha=0.8, zorder=2 if report.accepted else 1)
    accepted = [line for report, line in zip(reports, lines, strict=True) if report.accepted]
    for own, look in (
        (lines, {"color": INK, "linestyle": "--", "linewidth": 1.6, "zorder": 5}),
        (accepted, {"color": ACCEPTED, "linestyle": "-", "linewidth": 2.2, "zorder": 4}),
    ):
        mean = _mean(own)
        axes.plot(range(len(mean)), mean, **look)  # type: ignore[arg-type]
    _leave_out_outliers(axes, lines)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.02)
    axes.set_xlabel("inner step")


def _mean(lines: Sequence[Sequence[float]]) -> list[float]:
    """Step by step over the attempts that got so far."""
    longest = max(map(len, lines), default=0)
    columns = [[line[step] for line in lines if len(line) > step and math.isfinite(line[step])] for step in range(longest)]
    return [mean(column) for column in columns]


def _leave_out_outliers(axes: Axes, lines: Sequence[Sequence[float]]) -> None:
    """A few steps that went astray must not press all others to the bottom."""
    values = sorted(value for line in lines for value in line if math.isfinite(value))
    if not values:
        return
    top = 1.1 * max(values[int(0.97 * (len(values) - 1))], *filter(math.isfinite, _mean(lines)))
    # Both terms are at least 0, but an agreement that is sought in place of sharpness may be below.
    lowest = min(0.0, values[0])
    if top > lowest:
        axes.set_ylim(lowest - 0.03 * (top - lowest), top)


def teleport_seconds_picture(results: Results) -> Figure | None:
    """Seconds per epoch of each method that teleports, below its counterpart without, and their ratio."""
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
        color=[WITH if name in teleporting else WITHOUT for name in names],
        texts=[f"{mean(seconds[name]):.2f} s" + _ratio(results, name, seconds) for name in names],
    )
    axes.set_xlim(left=0)
    compared = any(results.counterpart(name) in names for name in teleporting)
    above_texts(axes, "mean, and its ratio to\nthe same without teleports" if compared else "mean")
    axes.set_xlabel("seconds per epoch (steps and teleports; mean over the epochs of a run)")
    return figure


def _ratio(results: Results, name: str, seconds: dict[str, list[float]]) -> str:
    other = results.counterpart(name)
    unit = mean(seconds[other]) if other is not None and seconds.get(other) else math.nan
    return "" if math.isnan(unit) or unit == 0 else f"   {mean(seconds[name]) / unit:.2f}×"
