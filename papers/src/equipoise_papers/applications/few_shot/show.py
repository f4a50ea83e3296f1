"""The table of the few-shot example."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise_papers.applications.few_shot.run import Outcome
from equipoise_papers.applications.few_shot.settings import Settings
from equipoise_papers.applications.tables import mean_and_spread, table

__all__ = ["show"]


def show(outcomes: Sequence[Outcome], settings: Settings) -> str:
    """A row a method, means over the seeds (± standard deviation)."""
    rows = []
    for method in dict.fromkeys(outcome.method for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.method == method]
        shares = [outcome.share for outcome in own if outcome.share is not None]
        rows.append(
            [
                method,
                mean_and_spread([outcome.clean_accuracy for outcome in own]),
                mean_and_spread([outcome.robust_accuracy for outcome in own]),
                mean_and_spread([outcome.clean_loss for outcome in own], 3),
                mean_and_spread([outcome.robust_loss for outcome in own], 3),
                mean_and_spread(shares, 2) if shares else "",
            ]
        )
    seeds = sorted({outcome.seed for outcome in outcomes})
    return "\n".join(
        [
            f"{settings.ways}-way {settings.shots}-shot on novel digits, PGD within {settings.radius:g}; {settings.steps} "
            f"meta-training episodes, {len(seeds)} seed{'s' * (len(seeds) > 1)} (each with other novel classes); chance is "
            f"{100 / settings.ways:.1f} %",
            "",
            table(["method", "clean %", "robust %", "clean loss", "robust loss", "weight of robust"], rows),
        ]
    )
