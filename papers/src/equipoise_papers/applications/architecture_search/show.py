"""The tables of the architecture search."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise_papers.applications.architecture_search.cell import edges
from equipoise_papers.applications.architecture_search.run import Outcome
from equipoise_papers.applications.architecture_search.settings import Settings
from equipoise_papers.applications.tables import mean_and_spread, table

__all__ = ["show"]


def show(outcomes: Sequence[Outcome], settings: Settings) -> str:
    """A row a method and L, means over the seeds (± standard deviation), then the architectures of the first seed."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        wished = "none" if outcome.method == "darts" else f"{outcome.wished:g}"
        groups.setdefault((outcome.method, wished), []).append(outcome)
    rows = [
        [
            method,
            wished,
            mean_and_spread([outcome.expected for outcome in own], 0),
            mean_and_spread([outcome.parameters for outcome in own], 0),
            mean_and_spread([outcome.accuracy for outcome in own]),
            mean_and_spread([outcome.robust_accuracy for outcome in own]),
        ]
        for (method, wished), own in groups.items()
    ]
    first = outcomes[0].seed
    names = [f"{source}→{target}" for source, target in edges(settings.nodes)]
    found = [[method, wished, *own[0].architecture] for (method, wished), own in groups.items() if own[0].seed == first]
    seeds = len({outcome.seed for outcome in outcomes})
    return "\n".join(
        [
            f"cells of {settings.nodes} nodes and {settings.channels} channels, {settings.steps} steps, attacks within "
            f"{settings.radius:g}, {seeds} seed{'s' * (seeds > 1)}; parameters of the cell's operations",
            "",
            table(["method", "L", "expected (3.36)", "found", "accuracy %", "robust %"], rows),
            "",
            f"found with seed {first}:",
            "",
            table(["method", "L", *names], found),
        ]
    )
