"""All pictures of a report, in their order: those of every study, and those of studies in which a method teleports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equipoise.metrics import spread
from equipoise.metrics.metric import mean
from equipoise.study.names import wrapped
from equipoise.study.pictures.style import BASELINE, above_texts, dots, grid, is_leftmost, names_axis, single
from equipoise.study.pictures.teleports import (
    teleport_changes_picture,
    teleport_conflicts_picture,
    teleport_searches_picture,
    teleport_seconds_picture,
)
from equipoise.study.pictures.training import (
    conflicts_picture,
    cosines_picture,
    loss_and_conflict_picture,
    loss_distribution_picture,
    losses_picture,
    norms_picture,
    recorded_picture,
    validation_picture,
    weights_picture,
)
from equipoise.study.results import Results

__all__ = ["PICTURES", "RECORDED", "TELEPORT_PICTURES", "Picture", "delta_m_picture", "metrics_picture", "seconds_picture"]


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
    for axes, metric in zip(panels, results.metrics, strict=True):
        names_axis(axes, [results.short(name) for name in names], labelled=is_leftmost(axes))
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
    milliseconds = {name: [value * 1e3 for value in own] for name in results.methods if (own := results.seconds(name))}
    if not milliseconds:
        return None
    names = sorted(milliseconds, key=lambda name: mean(milliseconds[name]))
    reference = results.reference if results.reference in milliseconds else names[0]
    unit = mean(milliseconds[reference])
    texts = [f"{mean(milliseconds[name]):.1f} ms   {mean(milliseconds[name]) / unit:.2f}×" for name in names]
    figure, axes = single(7.5, 1.1 + 0.38 * len(names))
    names_axis(axes, [results.short(name) for name in names])
    dots(axes, [milliseconds[name] for name in names], texts=texts)
    axes.set_xlim(left=0)
    above_texts(axes, f"mean, and its ratio to {wrapped(reference, 20)}")
    axes.set_xlabel("milliseconds per step (median over the steps of a run)")
    return figure


T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True)
class Picture(Generic[T_contra]):
    """One picture.

    Attributes:
        name: of its file, without ending.
        title: what it shows.
        caption: how to read it.
        draw: makes the figure, of a study's results or whatever the report is on; ``None`` where they hold nothing to show.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[T_contra], Figure | None]


PICTURES: tuple[Picture[Results], ...] = (
    Picture(
        "delta_m",
        "Overall: Δm",
        "Filled: mean over seeds, with ± one standard deviation; open: the seeds. Left of the dashed line is better than "
        "single-task training.",
        delta_m_picture,
    ),
    Picture(
        "metrics",
        "Each metric",
        "Test split; marks as above, methods in the order of their Δm. The dashed line and its band are single-task training.",
        metrics_picture,
    ),
    Picture(
        "losses",
        "Training losses",
        "Mean over the steps of an epoch and over seeds. A loss that stays above the single-task curve is that of a task "
        "which is being neglected.",
        losses_picture,
    ),
    Picture(
        "validation",
        "Validation curves",
        "Metrics on the validation split after every epoch, means over seeds; lines as above. Where a curve has turned, a run "
        "was too long; where it still moves at the end, too short.",
        validation_picture,
    ),
    Picture(
        "norms",
        "Gradient norms",
        "Mean norm of a task's gradient with respect to the shared parameters, over the steps in which a Gramian was looked "
        "at, and over seeds. Tasks whose norms differ by orders of magnitude are what adding up losses goes wrong on.",
        norms_picture,
    ),
    Picture(
        "conflicts",
        "Conflicting steps",
        "A task conflicts when its gradient has a negative inner product with the mean gradient of all tasks. Means over "
        "seeds; for methods that form no Gramian, over some steps of every epoch only.",
        conflicts_picture,
    ),
    Picture(
        "weights",
        "Task weights",
        "Mean weight of a task in an epoch, divided by the sum over tasks; means over seeds. Weights multiply losses of "
        "different scale, so equal shares do not mean equal influence.",
        weights_picture,
    ),
    Picture(
        "loss_distribution",
        "Distribution of the losses",
        "Training losses of the last epoch over the first loss of the same task and run: tasks and seeds together. Dashed: "
        "their mean; the grey line is where training began. A narrow bar far left is what every method wants (Figure 8 of the "
        "LDC-MTL paper).",
        loss_distribution_picture,
    ),
    Picture(
        "cosines",
        "Cosines between task gradients",
        "Means over the last epoch's steps and over seeds; red fields are tasks that pull against each other. For methods that "
        "form no Gramian, over some of them only. Of more than eight tasks eight evenly spaced ones are shown (Figure 9 of "
        "the LDC-MTL paper).",
        cosines_picture,
    ),
    Picture(
        "seconds",
        "Time of a step",
        "Optimizer step alone, on one thread, of runs beside which the study ran no other; open marks are the seeds.",
        seconds_picture,
    ),
)

RECORDED: Picture[Results] = Picture(
    "recorded",
    "Further numbers of the problem",
    "What the problem records of its model after every epoch, such as task positions: thin lines are the seeds, thick ones "
    "their median. Of more than twelve numbers twelve evenly spaced ones are shown (Figure 5.2 of the thesis).",
    recorded_picture,
)
"""Drawn only where the problem records any."""

TELEPORT_PICTURES: tuple[Picture[Results], ...] = (
    Picture(
        "teleport_changes",
        "Teleports: before and after",
        "One mark per task and attempt, all seeds; filled in the task's colour where the model moved, open and grey where it "
        "stayed. "
        "Left: above the diagonal a task agrees better with the mean gradient afterwards. Right: above 1 its gradient has "
        "grown. Both were measured on held-out batches where COST holds some (Figure 8 of the COST paper).",
        teleport_changes_picture,
    ),
    Picture(
        "teleport_searches",
        "Teleports: the search",
        "The two terms of COST's objective before each inner step, one line per attempt (all seeds), on the batches that the "
        "search sees. L_t should end low: the losses are kept. L_g should rise: the spot is sharper, or whatever else is "
        "rewarded. What goes far astray leaves the picture, but counts in the means (Figure 5b of the COST paper).",
        teleport_searches_picture,
    ),
    Picture(
        "teleport_conflicts",
        "Conflicting steps with and without teleports",
        "Share of an epoch's steps, mean over seeds. Solid: the task with the smallest gradient conflicts with the mean "
        "gradient, which is COST's trigger for few tasks; dotted: any task does. For methods that form no Gramian, over some "
        "steps of every epoch only (Figure 5a of the COST paper).",
        teleport_conflicts_picture,
    ),
    Picture(
        "loss_and_conflict",
        "Conflict against loss",
        "One point per step, thinned, all seeds. Every task's loss is divided by its first one in the run, then averaged over "
        "tasks: training goes from right to left. Where points lie on both sides of 0 at one loss, there are points of equal "
        "loss with and without conflict. Dashed: accepted teleports, from where they started to where they landed, measured on "
        "batches of their own (Figures 3 and 9 of the COST paper).",
        loss_and_conflict_picture,
    ),
    Picture(
        "teleport_seconds",
        "Time of an epoch with and without teleports",
        "Filled: mean over seeds, with ± one standard deviation; open: the seeds. Without data loading, evaluation and "
        "diagnostics, on one thread, of runs beside which the study ran no other (Figure 11 of the COST paper).",
        teleport_seconds_picture,
    ),
)
"""Drawn only where at least one method teleports."""
