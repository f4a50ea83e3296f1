"""The page of a comparison of fronts: sentences, a table, the picture of the front, and hypervolume over cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from equipoise.diagnosis.page import Said, print_said, render_said, tables_of
from equipoise.fronts.outcome import FrontsOutcome, Interval
from equipoise.fronts.running import SWEEP, sweep_times
from equipoise.metrics.metric import mean
from equipoise.pareto import grid, nondominated
from equipoise.study.names import shortened
from equipoise.study.pictures import Picture
from equipoise.study.pictures.style import COLORS, INK, method_looks, single
from equipoise.study.pictures.teleports import legend_of
from equipoise.study.report.paper import write_paper
from equipoise.study.report.words import SideTable
from equipoise.study.report.write import drawn
from equipoise.terminal import printed

__all__ = ["fronts_paper", "print_fronts", "write_fronts"]

_SHAPES = ("o", "D", "^", "v", "P", "X")
_NAME = 26


def write_fronts(outcome: FrontsOutcome) -> tuple[Path, Path]:
    """Writes ``report.md``, ``report.html`` and the pictures."""
    folder = outcome.store.path
    return render_said(_said(outcome), folder, drawn(_PICTURES, outcome, folder))


def fronts_paper(outcome: FrontsOutcome) -> Path:
    """Writes pictures and the table for a paper; see :func:`~equipoise.study.report.paper.write_paper`."""
    return write_paper(outcome.store.path, _PICTURES, outcome, tables_of(_said(outcome)))


def print_fronts(outcome: FrontsOutcome, console: Console) -> None:
    """Prints the sentences and the table."""
    print_said(_said(outcome), console)


def _said(outcome: FrontsOutcome) -> Said:
    settings = outcome.settings
    names = ", ".join(metric.heading for metric in outcome.metrics)
    facts = {
        "problem": settings["problem"]["name"],
        "judged by": names,
        "seeds": ", ".join(map(str, outcome.seeds)),
        "each method may spend": f"{settings['models']} trainings of one model, of {settings['epochs']} epochs each",
        "sets are trained by": settings["balancer"] or "what their papers have",
        "members evaluated per set": str(len(grid(settings["members"], len(outcome.metrics)))),
    }
    lead = (
        f"Fronts of {sum(sweep_times(method) < 2 for method in outcome.methods)} methods at equal cost, a sweep of fixed "
        f"weights among them: what each has after {settings['models'] * settings['epochs']} epochs in all."
    )
    sentences = tuple(
        _sentence(outcome, method) for method in outcome.methods if not sweep_times(method) and outcome.against(method)
    )
    longer = tuple(
        f"a sweep of {sweep_times(method)} times the cost has {_volume(outcome, method)}; {SWEEP} has {_volume(outcome, SWEEP)}"
        for method in outcome.methods
        if sweep_times(method) > 1 and SWEEP in outcome.methods
    )
    unread = tuple(f"{name} is left out: {why}" for name, why in outcome.unread.items())
    return printed(
        Said(
            f"{settings['problem']['name']}: fronts",
            lead,
            (*sentences, *longer, *unread),
            {"Hypervolumes": _table(outcome)},
            facts,
        )
    )


def _volume(outcome: FrontsOutcome, method: str, part: int = -1) -> str:
    return Interval.of(list(outcome.hypervolumes(method, part).values())).text()


def _sentence(outcome: FrontsOutcome, method: str) -> str:
    """How a set stands against the sweep, as far as the seeds can tell."""
    found = Interval.of(list(outcome.against(method).values()))
    way = "more" if found.mean > 0 else "less"
    if math.isnan(found.half):
        return f"{method} has {abs(found.mean):.3f} {way} hypervolume than the sweep on the one seed; one seed tells little"
    if abs(found.mean) > found.half:
        return f"{method} has {way} hypervolume than the sweep at equal cost: by {abs(found.mean):.3f} ± {found.half:.3f}"
    return f"{method} is not told apart from the sweep at equal cost: {found.text(sign=True)} hypervolume"


def _table(outcome: FrontsOutcome) -> SideTable:
    rows = []
    order = sorted(outcome.methods, key=lambda method: -mean(outcome.hypervolumes(method).values()))
    for method in order:
        runs = outcome.runs(method)
        last = [own["fronts"][-1] for own in runs.values()]
        against = Interval.of(list(outcome.against(method).values())) if method != SWEEP and outcome.against(method) else None
        rows.append(
            (
                method,
                _volume(outcome, method),
                "–" if against is None else against.text(sign=True),
                _volume(outcome, method, 0),
                f"{mean(len(outcome.points(method, seed)) for seed in runs):.1f} of {len(last[0]['points'])}",
                f"{last[0]['steps']:,}",
                f"{mean(own['seconds'] for own in last):.0f}",
                f"{next(iter(runs.values()))['parameters']:,}",
                str(len(runs)),
            )
        )
    return SideTable(
        (
            "method",
            "hypervolume ↑",
            "minus the sweep's",
            "at the price of one model",
            "points",
            "steps",
            "seconds",
            "parameters",
            "seeds",
        ),
        tuple(rows),
        (
            "Test split. Points: those that no other of the run dominates on the validation split, of all; these "
            "count. Hypervolume: share of the box between the best and the worst value of each metric over what counts of all "
            "methods and seeds, the worst moved outwards by a tenth; mean over seeds ± half of the 95 % confidence interval "
            "(Student's t), and of the paired differences likewise. At the price of one model: after as many steps as one "
            "training of one model takes, of which the sweep then has one.",
            "Steps are forward and backward passes of one batch. Seconds: processor time of the steps of one run, data, "
            "evaluation and choice left out. Parameters: of everything that has to be kept; of the sweep, of all models.",
        ),
    )


def _looks(outcome: FrontsOutcome) -> dict[str, tuple[str, str]]:
    """Method → colour and shape; the sweep is black."""
    others = [method for method in outcome.methods if not sweep_times(method)]
    looks = {method: (color, _SHAPES[COLORS.index(color)]) for method, (color, _) in method_looks(others).items()}
    for method in outcome.methods:
        if sweep_times(method):
            looks[method] = (INK, "s") if method == SWEEP else ("#888888", "p")
    return looks


def _front(outcome: FrontsOutcome) -> Figure | None:
    """All members of all seeds in the plane of two metrics, those that count filled, and the staircase of their front."""
    if len(outcome.metrics) != 2:
        return None
    figure, axes = single(7.6, 5.8)
    signs = np.array([metric.sign for metric in outcome.metrics])
    _, reference = outcome.box
    quarters = []
    for method, (color, shape) in _looks(outcome).items():
        pooled = []
        for seed in outcome.runs(method):
            every, chosen = outcome.points(method, seed, chosen=False) * signs, outcome.points(method, seed)
            axes.plot(*every.T, shape, markersize=4.5, markerfacecolor="none", markeredgecolor=color, alpha=0.45, zorder=3)
            axes.plot(
                *(chosen * signs).T, shape, markersize=6.5, color=color, markeredgecolor="white", markeredgewidth=0.5, zorder=5
            )
            pooled.append(chosen)
        own = np.concatenate(pooled)
        own = own[nondominated(own)]
        quarters.append(np.quantile(np.concatenate(pooled), 0.75, axis=0))
        corners = own[np.argsort(own[:, 0])]
        stairs = [[corners[0][0], reference[1]]]
        for place, corner in enumerate(corners):
            right = corners[place + 1][0] if place + 1 < len(corners) else reference[0]
            stairs += [list(corner), [max(right, corner[0]), corner[1]]]
        axes.plot(*(np.array(stairs) * signs).T, color=color, linewidth=1.1, alpha=0.8, zorder=2)
    # Three quarters of what counts of every method, with room; ends that starve a task would press all else into a corner.
    ideal, worst = outcome.box[0], np.max(quarters, axis=0)
    low, high = ideal - 0.08 * (worst - ideal), worst + 0.3 * (worst - ideal)
    for limits, sign, place in ((axes.set_xlim, signs[0], 0), (axes.set_ylim, signs[1], 1)):
        limits(*sorted((sign * low[place], sign * high[place])))
    axes.set_xlabel(outcome.metrics[0].axis)
    axes.set_ylabel(outcome.metrics[1].axis)
    axes.ticklabel_format(useOffset=False)
    entries: list[tuple[str, dict[str, object]]] = []
    for method, (color, shape) in _looks(outcome).items():
        counting = np.concatenate([outcome.points(method, seed) for seed in outcome.runs(method)])
        outside = int((counting > high).any(axis=1).sum())
        name = shortened(method, _NAME) + (f" ({outside} outside)" if outside else "")
        entries.append((name, {"marker": shape, "color": color, "linestyle": "-", "linewidth": 1.1}))
    legend_of(figure, entries, margins=9)
    return figure


def _over_cost(outcome: FrontsOutcome) -> Figure | None:
    """Hypervolume after each part of training; the seeds as thin lines."""
    parts = outcome.settings["models"]
    if parts < 2:
        return None
    figure, axes = single(7.6, 4.4)
    epochs = [(part + 1) * outcome.settings["epochs"] for part in range(parts)]
    for method, (color, shape) in _looks(outcome).items():
        found = [outcome.hypervolumes(method, part) for part in range(parts)]
        if sweep_times(method) > 1:  # elsewhere on the axis; where it ends is what it can be compared with
            axes.axhline(mean(found[-1].values()), color=color, linestyle="--", linewidth=1.2, zorder=1)
            continue
        for seed in found[0]:
            axes.plot(epochs, [own[seed] for own in found], color=color, linewidth=0.6, alpha=0.4, zorder=2)
        axes.plot(
            epochs,
            [mean(own.values()) for own in found],
            shape,
            linestyle="-",
            markersize=6,
            color=color,
            linewidth=1.6,
            zorder=4,
        )
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("epochs spent, all models of a method together")
    axes.set_ylabel("hypervolume, share of the box")
    axes.set_xticks(epochs)
    legend_of(
        figure,
        [
            (
                shortened(method, _NAME),
                {"color": color, "linestyle": "--"}
                if sweep_times(method) > 1
                else {"marker": shape, "color": color, "linestyle": "-", "linewidth": 1.6},
            )
            for method, (color, shape) in _looks(outcome).items()
        ],
        margins=9,
    )
    return figure


_PICTURES: tuple[Picture[FrontsOutcome], ...] = (
    Picture(
        "front",
        "The front",
        "Every member (of the sweep: model) of every seed on the test split; filled: those that no other of its run dominates "
        "on the validation split. Lines: the front of these, all seeds together. Ends that starve a task are not shown.",
        _front,
    ),
    Picture(
        "hypervolume",
        "Hypervolume over cost",
        "Mean over the seeds, which are the thin lines. The sweep gains a model at each mark. Dashed, where there is one: what "
        "a sweep whose models are trained longer has in the end.",
        _over_cost,
    ),
)
