"""The table of loss discrepancy."""

from __future__ import annotations

from equipoise.study.discrepancy import Discrepancy, discrepancy, final_losses, relative_losses
from equipoise.study.report.side_table import SideTable
from equipoise.study.results import Results

__all__ = ["discrepancy_table"]


def discrepancy_table(results: Results) -> SideTable | None:
    """Mean, standard deviation, smallest and largest loss over the tasks; ``None`` for a single task."""
    if len(results.tasks) < 2 or not results.methods:
        return None
    names = ("mean", "deviation", "min", "max")
    columns = ("method", *names, *(f"relative {name}" for name in names))
    rows = tuple(
        (method, *_texts(discrepancy(final_losses(results, method))), *_texts(discrepancy(relative_losses(results, method))))
        for method in results.ranking()
    )
    return SideTable(
        columns,
        rows,
        (
            "Training losses of the last epoch (means over its steps), over the tasks; each number is the mean over seeds. The "
            "deviation is that of the tasks' losses from their mean, not an uncertainty. Relative: each loss over the size of "
            "the task's first loss in the run, which makes tasks of different scale comparable (Table 3 of the LDC-MTL paper).",
        ),
    )


def _texts(found: Discrepancy | None) -> tuple[str, ...]:
    if found is None:
        return ("–",) * 4
    return tuple(f"{value:.3g}".replace("-", "−") for value in (found.mean, found.deviation, found.lowest, found.highest))
