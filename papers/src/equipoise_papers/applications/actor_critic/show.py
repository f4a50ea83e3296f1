"""The table of the actor-critic example."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise_papers.applications.actor_critic.run import Outcome
from equipoise_papers.applications.actor_critic.settings import Settings
from equipoise_papers.applications.tables import mean_and_spread, table

__all__ = ["show"]


def show(outcomes: Sequence[Outcome], settings: Settings) -> str:
    """A row a balancer and task, means over the seeds (± standard deviation), and the mean of the tasks."""
    rows = []
    for balancer in dict.fromkeys(outcome.balancer for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.balancer == balancer]
        tasks = list(own[0].after)
        for task in tasks:
            shares = [outcome.weights[task] for outcome in own if outcome.weights]
            rows.append(
                [
                    balancer,
                    task,
                    mean_and_spread([outcome.before[task] for outcome in own], 0),
                    mean_and_spread([outcome.after[task] for outcome in own], 0),
                    mean_and_spread([outcome.residuals[task] for outcome in own], 4),
                    mean_and_spread(shares, 2) if shares else "",
                ]
            )
        rows.append(
            [
                balancer,
                "mean",
                mean_and_spread([sum(outcome.before.values()) / len(tasks) for outcome in own], 0),
                mean_and_spread([sum(outcome.after.values()) / len(tasks) for outcome in own], 0),
                mean_and_spread([sum(outcome.residuals.values()) / len(tasks) for outcome in own], 4),
                "",
            ]
        )
    seeds = len({outcome.seed for outcome in outcomes})
    return "\n".join(
        [
            f"soft actor-critic, {settings.steps} steps a task, {seeds} seed{'s' * (seeds > 1)}, "
            f"returns over {settings.test_episodes} episodes",
            "",
            table(["balancer", "task", "return before", "return after", "Bellman residual", "weight"], rows),
        ]
    )
