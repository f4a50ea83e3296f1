"""All pictures of a report, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from equipoise.study.pictures.conflicts import conflicts_picture
from equipoise.study.pictures.delta_m import delta_m_picture
from equipoise.study.pictures.losses import losses_picture
from equipoise.study.pictures.metrics import metrics_picture
from equipoise.study.pictures.seconds import seconds_picture
from equipoise.study.pictures.weights import weights_picture
from equipoise.study.results import Results

__all__ = ["PICTURES", "Picture"]


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: of its file, without ending.
        title: what it shows.
        caption: how to read it.
        draw: makes the figure; ``None`` where the results hold nothing to show.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Results], Figure | None]


PICTURES = (
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
        "Test split, last epoch; marks as above, methods in the order of their Δm. The dashed line and its band are "
        "single-task training.",
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
        "conflicts",
        "Conflicting steps",
        "A task conflicts when its gradient has a negative inner product with the mean gradient of all tasks. Means over "
        "seeds; for methods that form no Gramian from every n-th step only.",
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
        "seconds",
        "Time of a step",
        "Optimizer step alone, on one thread; open marks are the seeds. Runs side by side on one machine disturb each other.",
        seconds_picture,
    ),
)
