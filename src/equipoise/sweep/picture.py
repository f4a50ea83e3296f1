"""The picture of a sweep: its trials and the methods in the plane of two metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equipoise.metrics import Metric, spread
from equipoise.study.names import shortened
from equipoise.study.pictures.style import GREY, INK, STYLES, method_looks, single
from equipoise.study.pictures.teleports import legend_of
from equipoise.sweep.front import pareto
from equipoise.sweep.outcome import Outcome

__all__ = ["front_picture"]

_SWEEP = INK
_SHAPES = dict(zip(STYLES, ("o", "D", "^", "v"), strict=True))  # a shape where curves have a line of their own
_NAME = 26
_PALE = "#999999"


def front_picture(outcome: Outcome) -> Figure | None:
    """The picture; none before a trial was confirmed."""
    sweep = [*outcome.confirmed, *outcome.also_trials()]
    if not sweep:
        return None
    figure, axes = single(7.6, 5.6)
    x, y = outcome.front
    means = {label: _mean(outcome, label) for label in dict.fromkeys((*sweep, *outcome.methods))}
    axes.set_xlabel(x.axis)
    axes.set_ylabel(y.axis)
    _baseline(outcome, axes)
    searched = [(trial.test.get(x.name, math.nan), trial.test.get(y.name, math.nan)) for trial in outcome.trials]
    axes.scatter(*_columns(searched), marker="x", s=20, color=_PALE, linewidths=0.9, zorder=2)
    for label in outcome.confirmed:
        _seeds(outcome, axes, label, _SWEEP, "s")
        axes.plot(*means[label], "s", markersize=6.5, color=_SWEEP, zorder=5)
    looks = {label: (color, _SHAPES[style]) for label, (color, style) in method_looks(outcome.methods).items()}
    for label, (color, shape) in looks.items():
        _seeds(outcome, axes, label, color, shape)
        axes.plot(*means[label], shape, markersize=9, color=color, markeredgecolor="white", markeredgewidth=0.8, zorder=6)
    outside = _limits(outcome, axes, searched)
    _front(axes, [means[label] for label in sweep], outcome.front)
    _name_trials(
        figure,
        axes,
        {outcome.name(label): means[label] for label in outcome.confirmed},
        [*(means[own] for own in outcome.methods), *(point for own in sweep for point in _points(outcome, own))],
    )
    axes.ticklabel_format(useOffset=False)
    searching = "trial of the search" + (f" ({outside} outside)" if outside else "")
    entries: list[tuple[str, dict[str, object]]] = [
        (shortened(label, _NAME), {"marker": shape, "color": color}) for label, (color, shape) in looks.items()
    ]
    legend_of(
        figure,
        [
            *entries,
            ("confirmed trial", {"marker": "s", "color": _SWEEP}),
            ("their front", {"linestyle": "-", "color": _SWEEP, "linewidth": 1.1}),
            (searching, {"marker": "x", "color": _PALE, "markersize": 5}),
            ("single-task", {"linestyle": ":", "color": _PALE, "linewidth": 1.3}),
        ],
    )
    return figure


def _name_trials(
    figure: Figure, axes: Axes, names: Mapping[str, tuple[float, float]], others: Sequence[tuple[float, float]]
) -> None:
    """Writes each name beside its mark, where it hides no other name and no mark of a method."""
    scale = axes.transLimits
    size = np.array([figure.get_figwidth() * 72 * 0.9, figure.get_figheight() * 72 * 0.8])  # points, about
    taken = [scale.transform(point) * size for point in (*names.values(), *others)]
    for name, point in names.items():
        wide = 5.0 * len(name)
        places = [(dx, dy) for dy in (5.0, -12.0, 16.0, -23.0) for dx in (6.0, -wide - 6, 16.0, -wide - 16)]
        centers = [scale.transform(point) * size + np.array([dx + wide / 2, dy + 3]) for dx, dy in places]
        free = [all(abs(c - t)[0] > wide / 2 + 4 or abs(c - t)[1] > 8 for t in taken) for c in centers]
        chosen = free.index(True) if True in free else 0
        taken.append(centers[chosen])
        axes.annotate(name, point, xytext=places[chosen], textcoords="offset points", fontsize=8, color=_SWEEP, zorder=7)


def _mean(outcome: Outcome, label: str) -> tuple[float, float]:
    x, y = (spread(column).mean for column in zip(*_points(outcome, label), strict=True))
    return x, y


def _points(outcome: Outcome, label: str) -> list[tuple[float, float]]:
    x, y = (outcome.results.values(label, metric) for metric in outcome.front)
    return [(x[seed], y[seed]) for seed in x if seed in outcome.seeds]


def _columns(points: Iterable[Sequence[float]]) -> tuple[list[float], list[float]]:
    own = list(points)
    return [point[0] for point in own], [point[1] for point in own]


def _seeds(outcome: Outcome, axes: Axes, label: str, color: str, shape: str) -> None:
    points = _points(outcome, label)
    mean = _mean(outcome, label)
    for point in points:
        # A thin line says whose seeds they are.
        axes.plot(*_columns([mean, point]), color=color, linewidth=0.6, alpha=0.45, zorder=3)
    axes.scatter(*_columns(points), marker=shape, s=14, facecolors="white", edgecolors=color, linewidths=0.8, zorder=4)


def _baseline(outcome: Outcome, axes: Axes) -> None:
    known = outcome.results.baseline()
    for metric, draw in zip(outcome.front, (axes.axvline, axes.axhline), strict=True):
        if metric.name in known and math.isfinite(known[metric.name].mean):
            draw(known[metric.name].mean, color=_PALE, linestyle=":", linewidth=1.3, zorder=1)


def _limits(outcome: Outcome, axes: Axes, searched: Sequence[tuple[float, float]]) -> int:
    """Shows all that was judged, and of the search what lies near it; returns how many trials are left outside."""
    judged = [point for label in (*outcome.confirmed, *outcome.methods) for point in _points(outcome, label)]
    known = outcome.results.baseline()
    judged.append((known[outcome.front[0].name].mean, known[outcome.front[1].name].mean))
    rows = np.array([point for point in judged if all(map(math.isfinite, point))])
    others = np.array([point for point in searched if all(map(math.isfinite, point))]).reshape(-1, 2)
    low, high = rows.min(axis=0), rows.max(axis=0)
    room = np.where(high > low, high - low, np.abs(high) + 1e-12)
    # Trials that starve a task would press everything else into a corner: at most a quarter of the picture is theirs.
    low = np.minimum(low, np.maximum(others.min(axis=0), low - 0.25 * room)) if len(others) else low
    high = np.maximum(high, np.minimum(others.max(axis=0), high + 0.25 * room)) if len(others) else high
    room = high - low
    low, high = low - 0.05 * room, high + 0.05 * room
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    inside = ((others >= low) & (others <= high)).all(axis=1) if len(others) else np.zeros(0, bool)
    return int(len(others) - inside.sum())


def _front(axes: Axes, means: Sequence[tuple[float, float]], metrics: Sequence[Metric]) -> None:
    """The staircase through the points that no other one dominates, and what it dominates."""
    signs = [metric.sign for metric in metrics]
    badness = [[sign * value for sign, value in zip(signs, point, strict=True)] for point in means]
    corners = sorted(badness[position] for position in pareto(badness))
    if not corners:
        return
    # From far up along the first corner to far right along the last; the limits of the axes cut it off.
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    far = [max(sign * x for x in (x0, x1)) for sign in signs[:1]] + [max(sign * y for y in (y0, y1)) for sign in signs[1:]]
    path = [[corners[0][0], far[1]]]
    for one, following in zip(corners, [*corners[1:], None], strict=True):
        path.append(one)
        path.append([following[0] if following else far[0], one[1]])
    stairs = [[sign * value for sign, value in zip(signs, point, strict=True)] for point in path]
    axes.plot(*_columns(stairs), color=_SWEEP, linewidth=1.1, zorder=3)
    corner = [sign * value for sign, value in zip(signs, far, strict=True)]
    axes.fill(*_columns([*stairs, corner]), color=GREY, alpha=0.16, linewidth=0, zorder=0)
