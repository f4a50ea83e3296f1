"""Pictures of the training: losses, weights, conflicts, cosines, and loss against conflict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from equipoise.metrics.metric import mean
from equipoise.study.names import shortened, wrapped
from equipoise.study.pictures.style import (
    ACCENT,
    COLORS,
    GREY,
    INK,
    STYLES,
    by_method,
    epochs_axis,
    fewest_empty,
    grid,
    is_leftmost,
    is_lowest,
    label_ends,
    legend,
    log_scale,
    method_looks,
    percent,
)
from equipoise.study.pictures.teleports import legend_of, rows, shown
from equipoise.study.results import Results, relative_losses
from equipoise.teleport import TeleportReport

__all__ = [
    "conflicts_picture",
    "cosines_picture",
    "loss_and_conflict_picture",
    "loss_distribution_picture",
    "losses_picture",
    "norms_picture",
    "recorded_picture",
    "validation_picture",
    "weights_picture",
]

_HEIGHT = 3.0  # inches per panel, title and labels included
_PANELS = 12  # more tasks than that would not be readable in one picture


def losses_picture(results: Results) -> Figure | None:
    """Mean training loss of each task; a few methods stand out and are named at their ends, and the legend has all."""
    if not results.methods:
        return None
    return _curves(
        results,
        [
            (task, {name: results.curve(name, "losses", task) for name in results.methods}, own)
            for task in results.tasks[:_PANELS]
            for own in [results.baseline_curve(task, "losses", task)]
        ],
        "training loss",
    )


def validation_picture(results: Results) -> Figure | None:
    """Each metric on the validation split; none where there is no such split."""
    panels = [
        (
            metric.axis,
            {name: results.curve(name, "validation", metric.name) for name in results.methods},
            results.baseline_curve(metric.task, "validation", metric.name),
        )
        for metric in results.metrics[:_PANELS]
    ]
    if not any(math.isfinite(value) for _, curves, _ in panels for curve in curves.values() for value in curve):
        return None
    return _curves(results, panels, "")


def _curves(
    results: Results, panels: Sequence[tuple[str, Mapping[str, Sequence[float]], Sequence[float]]], what: str
) -> Figure:
    """One panel per (title, method → curve, curve of single-task training), with a legend of all methods."""
    columns = 2
    figure, places = grid(len(panels), columns=columns, width=4.8, height=_HEIGHT)
    ranking, named = results.ranking(), highlighted(results)
    looks = method_looks(ranking)
    for axes, (title, curves, alone) in zip(places, panels, strict=True):
        ends = []
        for name in reversed(ranking):  # the best on top
            color, style = looks[name]
            # Each narrower than the one below it, so that curves that coincide are still seen to be several.
            width = 1.0 if name not in named else 3.2 - 0.5 * (len(named) - named.index(name))
            _draw(axes, curves[name], color=color, linestyle=style, linewidth=width, zorder=3 if name in named else 2)
            if name in named and curves[name]:
                ends.append((curves[name][-1], shortened(results.short(name), 24), color))
        if alone:
            _draw(axes, alone, color="black", linewidth=1.6, linestyle=(0, (4, 1.5)), zorder=4)
            ends.append((alone[-1], "single-task", "black"))
        finite = [value for curve in (*curves.values(), alone) for value in curve if math.isfinite(value)]
        if finite and min(finite) > 0 and max(finite) > 3 * min(finite):
            log_scale(axes)
        epochs_axis(axes, results.epochs)
        axes.set_ylabel(what)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        label_ends(axes, ends, panel=0.72 * figure.get_figheight() / -(-len(places) // columns))
    entries = [(shortened(results.short(name), 30), *looks[name]) for name in ranking]
    legend(figure, [*entries, ("single-task", "black", "--")])
    return figure


def norms_picture(results: Results) -> Figure | None:
    """Mean norm of each task's gradient in an epoch; none where no Gramian was formed."""
    curves = {
        name: [results.curve(name, "conflicts", "tasks", task, "norm") for task in results.tasks] for name in results.ranking()
    }
    shown = [name for name, own in curves.items() if any(value > 0 for curve in own for value in curve)]
    if not shown:
        return None
    figure, panels = by_method(results, "norm of the gradient", shown)
    few = len(results.tasks) <= _NAMED
    for name, axes in panels.items():
        for position, curve in enumerate(curves[name]):
            color, style = _look(position) if few else (COLORS[0], "-")
            drawn = [value if value > 0 else math.nan for value in curve]
            axes.plot(range(1, len(curve) + 1), drawn, color=color, linestyle=style, linewidth=1.8 if few else 0.6, zorder=3)
    log_scale(next(iter(panels.values())))  # the panels share it
    entries = [(task, *_look(position)) for position, task in enumerate(results.tasks)]
    legend(figure, entries if few else [("a task", COLORS[0], "-")])
    return figure


def highlighted(results: Results) -> list[str]:
    """The methods that stand out: all if they are few, else the two best, the reference, and the worst by Δm."""
    ranking = results.ranking()
    if len(ranking) <= 4:
        return list(ranking)
    return list(dict.fromkeys((*ranking[:2], results.reference, ranking[-1])))


def _draw(axes: Axes, curve: Sequence[float], **style: object) -> None:
    # A point as well where there is nothing to connect it to.
    axes.plot(range(1, len(curve) + 1), curve, marker="o" if len(curve) == 1 else None, markersize=4, **style)  # type: ignore[arg-type]


_NAMED = 12  # more tasks than that get one thin line each, without names


def weights_picture(results: Results) -> Figure | None:
    """Each task's share of the total weight, which makes methods of different scales comparable."""
    shares = {name: _shares(results, name) for name in results.ranking()}
    shown = [name for name, own in shares.items() if any(map(math.isfinite, (v for curve in own for v in curve)))]
    if not shown:
        return None
    figure, panels = by_method(results, "share of weight", shown)
    few = len(results.tasks) <= _NAMED
    # With many tasks all shares are small, and would lie on the ground of an axis that ends at 1.
    largest = max(share for name in shown for curve in shares[name] for share in curve if math.isfinite(share))
    for name, axes in panels.items():
        axes.axhline(1 / len(results.tasks), color=GREY, linewidth=1.2)
        for position, curve in enumerate(shares[name]):
            color, style = _look(position) if few else (COLORS[0], "-")
            axes.plot(range(1, len(curve) + 1), curve, color=color, linestyle=style, linewidth=1.8 if few else 0.6, zorder=3)
        percent(axes, largest)
    entries = [(task, *_look(position)) for position, task in enumerate(results.tasks)] if few else []
    legend(figure, [*entries, ("equal shares", GREY, "-")])
    return figure


def recorded_picture(results: Results) -> Figure | None:
    """Further numbers of the problem over the epochs, such as task positions: thin for each seed and thick for their median.

    Not the mean: with positions seeds may end on different sides of 0, and nothing lies between.
    """
    found = {name: [record["history"] for record in results.records(name).values()] for name in results.ranking()}
    kept = {name: [own for own in runs if own[-1].get("recorded")] for name, runs in found.items()}
    kept = {name: runs for name, runs in kept.items() if runs}
    names = list(dict.fromkeys(key for runs in kept.values() for own in runs for key in own[-1]["recorded"]))
    if not names:
        return None
    # Of many, evenly spaced ones are shown, as everywhere.
    places = range(len(names)) if len(names) <= _NAMED else np.linspace(0, len(names) - 1, _NAMED).round().astype(int)
    names = [names[place] for place in places]
    figure, panels = by_method(results, "recorded", list(kept))
    for method, axes in panels.items():
        for position, name in enumerate(names):
            color, style = _look(position)
            curves = np.full((len(kept[method]), results.epochs), np.nan)
            for row, own in enumerate(kept[method]):
                values = [epoch.get("recorded", {}).get(name) for epoch in own]
                curves[row, : len(values)] = [math.nan if value is None else value for value in values]
            seen = np.isfinite(curves).any(0)
            epochs = np.arange(1, results.epochs + 1)[seen]
            axes.plot(epochs, curves[:, seen].T, color=color, linestyle=style, linewidth=0.6, alpha=0.45, zorder=2)
            axes.plot(epochs, np.nanmedian(curves[:, seen], 0), color=color, linestyle=style, linewidth=1.8, zorder=3)
    legend(figure, [(name, *_look(position)) for position, name in enumerate(names)])
    return figure


def _shares(results: Results, method: str) -> list[list[float]]:
    """Task → epoch → mean weight divided by the sum over tasks of magnitudes."""
    curves = [results.curve(method, "weights", task) for task in results.tasks]
    sizes = [[abs(value) for value in epoch if math.isfinite(value)] for epoch in zip(*curves, strict=True)]
    totals = [len(own) * mean(own) if own else 0.0 for own in sizes]
    return [[value / total if total else math.nan for value, total in zip(curve, totals, strict=True)] for curve in curves]


def _look(position: int) -> tuple[str, str]:
    return COLORS[position % len(COLORS)], STYLES[(position + position // len(COLORS)) % len(STYLES)]


def conflicts_picture(results: Results) -> Figure | None:
    """Share of steps in which any task, and in which the task with the smallest gradient, conflicts with the mean."""
    curves = {
        name: (results.curve(name, "conflicts", "any"), results.curve(name, "conflicts", "smallest"))
        for name in results.ranking()
    }
    if not any(math.isfinite(value) for pair in curves.values() for curve in pair for value in curve):
        return None
    figure, panels = by_method(results, "share of steps")
    for name, axes in panels.items():
        for other in results.methods:
            axes.plot(range(1, len(curves[other][0]) + 1), curves[other][0], color="#DDDDDD", linewidth=0.8, zorder=1)
        for curve, color, style in zip(curves[name], COLORS, ("-", "--"), strict=False):
            axes.plot(range(1, len(curve) + 1), curve, color=color, linestyle=style, linewidth=1.8, zorder=3)
        percent(axes)
    legend(
        figure,
        [
            ("any task conflicts with the mean gradient", COLORS[0], "-"),
            ("the task with the smallest gradient does", COLORS[1], "--"),
            ("the other methods (any task)", "#CCCCCC", "-"),
        ],
    )
    return figure


_MOST = 8  # tasks in a panel: the number of the LDC-MTL paper's figure
_WRITTEN = 5  # up to so many tasks the numbers stand in the fields


def cosines_picture(results: Results) -> Figure | None:
    """Mean cosines between task gradients over the last epoch's steps, means over seeds."""
    tasks = list(range(len(results.tasks)))
    # Of many tasks evenly spaced ones are shown: no choice that could flatter.
    shown = tasks if len(tasks) <= _MOST else [int(place) for place in np.linspace(0, len(tasks) - 1, _MOST).round()]
    matrices = {name: found for name in results.ranking() if (found := _matrix(results, name)) is not None}
    if not matrices:
        return None
    figure, panels = grid(len(matrices), columns=fewest_empty(len(matrices)), width=2.6, height=2.5)
    names = [shortened(results.tasks[place], 10) for place in shown]
    image = None
    for (name, matrix), axes in zip(matrices.items(), panels, strict=True):
        part = matrix[np.ix_(shown, shown)]
        image = axes.imshow(part, vmin=-1, vmax=1, cmap="RdBu")
        axes.grid(False)
        axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(shown)), names, fontsize=8)
        axes.set_title(wrapped(results.short(name), 19), loc="left", fontsize=10, fontweight="bold")
        if len(shown) <= _WRITTEN:
            for (row, column), value in np.ndenumerate(part):
                if np.isfinite(value):
                    color = "white" if abs(value) > 0.6 else INK
                    text = f"{value:.2f}".replace("-", "−")
                    axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    assert image is not None
    figure.colorbar(image, ax=panels, location="bottom", shrink=0.5, aspect=40, label="cosine")
    return figure


def _matrix(results: Results, method: str) -> NDArray[np.float64] | None:
    found = []
    for record in results.records(method).values():
        pairs = (record["history"][-1]["conflicts"] or {}).get("cosines")
        if pairs is not None:
            found.append(np.array([[np.nan if value is None else value for value in row] for row in pairs]))
    return np.mean(found, axis=0) if found else None


_BINS = 24


def loss_distribution_picture(results: Results) -> Figure | None:
    """A histogram over tasks and seeds of the last epoch's losses, each over the task's first loss."""
    losses = {name: [value for own in relative_losses(results, name) for value in own] for name in results.ranking()}
    losses = {name: [value for value in own if math.isfinite(value) and value > 0] for name, own in losses.items()}
    shown = [name for name, own in losses.items() if own]
    if not shown:
        return None
    every = np.concatenate([losses[name] for name in shown])
    low, high = every.min() / 1.3, every.max() * 1.3
    edges = np.geomspace(low, high, _BINS + 1)
    figure, panels = grid(len(shown), columns=fewest_empty(len(shown)), width=2.6, height=1.7, sharex=True, sharey=True)
    for name, axes in zip(shown, panels, strict=True):
        shares = np.full(len(losses[name]), 1.0 / len(losses[name]))
        axes.hist(losses[name], bins=edges.tolist(), weights=shares, color=ACCENT, edgecolor="white", linewidth=0.5, zorder=3)
        axes.axvline(float(np.mean(losses[name])), color=INK, linewidth=1.2, linestyle="--", zorder=4)
        axes.axvline(1.0, color=GREY, linewidth=1.2, zorder=2)
        axes.set_xscale("log")
        axes.set_title(wrapped(results.short(name), 22), loc="left", fontsize=10, fontweight="bold")
        if is_leftmost(axes):
            axes.set_ylabel("share of tasks")
        if is_lowest(axes, panels):
            axes.set_xlabel("loss over first loss")
    return figure


_AGREE, _CONFLICT = "#E6F4EC", "#FCE8E4"
_POINT = COLORS[0]
_TITLE = 34  # characters above a panel
_ENDS, _STAYS = "#C62828", "#8A6D6D"


def loss_and_conflict_picture(results: Results) -> Figure | None:
    """One row per method that teleports: on the left its counterpart without teleports, on the right the method itself."""
    names = [name for name in shown(results, attempted=False) if results.points(name)]
    if not names:
        return None
    figure, panels = rows(results, names, height=2.9)
    for name, left, right in panels:
        other = results.counterpart(name)
        alone = other is None or not results.points(other)
        own = left if alone else right
        _cloud(own, results.points(name))
        _jumps(own, results, name)
        own.set_title(shortened(results.short(name), _TITLE), loc="left", fontsize=10, fontweight="bold")
        if other is None or alone:
            right.set_visible(False)
            continue
        left.set_title(shortened(other, _TITLE), loc="left", fontsize=10, fontweight="bold")
        _cloud(left, results.points(other))
        limits = [limit for axes in (left, right) for limit in axes.get_xlim()]
        for axes in (left, right):
            axes.set_xlim(min(limits), max(limits))
    for axes in figure.axes:
        if axes.get_visible():
            _dress(axes)
    line = {"linestyle": (0, (4, 2)), "linewidth": 1.3, "markersize": 4, "marker": "o"}
    legend_of(
        figure,
        [
            ("a step", {"marker": "o", "color": _POINT, "markersize": 3}),
            ("teleport out of conflict (dot: where it landed)", {**line, "color": _ENDS}),
            ("other accepted teleport", {**line, "color": _STAYS, "linewidth": 0.9}),
        ],
    )
    return figure


def _cloud(axes: Axes, points: Mapping[int, Mapping[str, Any]]) -> None:
    for own in points.values():
        pairs = [
            (loss, cosine)
            for loss, cosine in zip(own["loss"], own["cosine"], strict=True)
            if loss is not None and cosine is not None and loss > 0
        ]
        if pairs:
            losses, cosines = zip(*pairs, strict=True)
            axes.scatter(losses, cosines, s=9, color=_POINT, alpha=0.45, linewidths=0, zorder=2)
    axes.set_xscale("log")
    axes.margins(x=0.04)


def _jumps(axes: Axes, results: Results, method: str) -> None:
    for seed, reports in results.teleports(method).items():
        scales = results.points(method).get(seed, {}).get("scales", {})
        for report in reports:
            if not report.accepted or not all(scales.get(task) for task in report.tasks):
                continue
            start, end = _place(report, scales, after=False), _place(report, scales, after=True)
            if not all(map(math.isfinite, (*start, *end))) or start[0] <= 0 or end[0] <= 0:
                continue
            ends = start[1] < 0 <= end[1]
            look = {"color": _ENDS if ends else _STAYS, "linewidth": 1.3 if ends else 0.9, "zorder": 4 if ends else 3}
            axes.plot(*zip(start, end, strict=True), linestyle=(0, (4, 2)), **look)  # type: ignore[arg-type]
            axes.plot(*end, marker="o", markersize=4, linestyle="none", **look)  # type: ignore[arg-type]


def _place(report: TeleportReport, scales: Mapping[str, float], *, after: bool) -> tuple[float, float]:
    """Scaled mean loss, and cosine of the task with the smallest gradient, as the points of the cloud have them."""
    losses, cosines, norms = (
        (report.losses_after, report.cosines_after, report.norms_after)
        if after
        else (report.losses_before, report.cosines_before, report.norms_before)
    )
    scaled = [loss / scales[task] for task, loss in zip(report.tasks, losses, strict=True)]
    return mean(scaled), cosines[int(np.argmin(norms))]


def _dress(axes: Axes) -> None:
    axes.axhspan(0, 1.05, color=_AGREE, linewidth=0, zorder=0)
    axes.axhspan(-1.05, 0, color=_CONFLICT, linewidth=0, zorder=0)
    axes.grid(False)
    axes.set_ylim(-1.05, 1.05)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    for height, align, text in ((0.98, "top", "no conflict"), (0.02, "bottom", "conflict")):
        axes.text(0.015, height, text, transform=axes.transAxes, ha="left", va=align, fontsize=8, color="#666666")
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    axes.xaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0] if decades < 2.2 else [1.0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("mean loss (1: at the start)")
    axes.set_ylabel("cosine of the smallest\ngradient with the mean")
