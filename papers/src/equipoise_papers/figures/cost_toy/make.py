"""Runs the experiment and writes what came out: pictures, table, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from equipoise.markdown import table as markdown
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.cost_toy.pictures import balancers_picture, front_picture, plane_picture, surfaces_picture
from equipoise_papers.figures.cost_toy.run import CostToyOutcome, CostToyTrajectories, outcomes, run
from equipoise_papers.figures.cost_toy.settings import CostToySettings
from equipoise_papers.figures.outputs import made_folder, parts_told, write_outputs
from equipoise_papers.toys import TOLERANCE

__all__ = ["HEADER", "as_markdown", "as_numbers", "caption", "cells", "make", "totals"]


def make(settings: CostToySettings, folder: Path, told: Told = silent) -> str:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: takes a line now and then.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made, or a balancer cannot be run.
    """
    made_folder(folder)
    trajectories = run(settings, parts_told(told, settings.steps))
    first = settings.balancers[0]
    pictures = {
        "": plane_picture(trajectories, first),
        "-balancers": balancers_picture(trajectories),
        "-losses": front_picture(trajectories, first),
        "-surfaces": surfaces_picture(trajectories.problem),
    }
    found = outcomes(trajectories)
    text = as_markdown(found, settings)
    write_outputs(folder, "cost-toy", pictures, text, as_numbers(found, trajectories))
    return text


HEADER = (
    "balancer",
    "start",
    "alone",
    "with COST",
    "steps alone",
    "steps with COST",
    "teleports needed",
    "loss change",
    "accepted / attempted",
)


def cells(outcome: CostToyOutcome) -> tuple[str, ...]:
    """A row of the table."""
    return (
        outcome.balancer,
        f"({outcome.start[0]:g}, {outcome.start[1]:g})",
        f"{outcome.alone} of {outcome.runs}",
        f"{outcome.with_cost} of {outcome.runs}",
        _count(outcome.steps_alone),
        _count(outcome.steps_with_cost),
        "–" if outcome.needed is None else f"{outcome.needed:g}",
        "–" if outcome.change is None else f"{outcome.change:.2f}",
        f"{outcome.accepted} / {outcome.attempted}",
    )


def totals(table: Sequence[CostToyOutcome]) -> list[tuple[str, ...]]:
    """A row for each balancer, over all its starting points."""
    rows: list[tuple[str, ...]] = []
    for balancer in dict.fromkeys(outcome.balancer for outcome in table):
        own = [outcome for outcome in table if outcome.balancer == balancer]
        runs = sum(outcome.runs for outcome in own)
        alone = f"{sum(outcome.alone for outcome in own)} of {runs}"
        with_cost = f"{sum(outcome.with_cost for outcome in own)} of {runs}"
        landings = f"{sum(outcome.accepted for outcome in own)} / {sum(outcome.attempted for outcome in own)}"
        rows.append((balancer, "all", alone, with_cost, "", "", "", "", landings))
    return rows


def as_markdown(table: Sequence[CostToyOutcome], settings: CostToySettings) -> str:
    """The table with its caption, as Markdown."""
    bold = [[f"**{cell}**" if cell else "" for cell in row] for row in totals(table)]
    return "\n".join([markdown(HEADER, [*map(cells, table), *bold], left=2), "", caption(table, settings), ""])


def caption(table: Sequence[CostToyOutcome], settings: CostToySettings) -> str:
    """How the numbers came about."""
    cost = settings.teleporting
    left = sum(outcome.left for outcome in table)
    ending = "" if cost.stop_step is None else f" and before step {cost.stop_step:,}"
    guard = f"guard on (tolerance {cost.tolerance:g})" if cost.guard else "guard off, as in the paper"
    sentences = [
        f"How many of {len(settings.seeds)} seeds end on the Pareto set (no point improves both losses by more than "
        f"{TOLERANCE:g}) after {settings.steps:,} steps; the median number of steps, and of teleports, until they are there "
        f"for good, and the median over these teleports of the mean absolute loss change.",
        "Alone nothing is random, so all seeds are one run.",
        f"f₂ with the {settings.sign} sign, {'with' if settings.factor else 'without'} the factor 0.1; Adam {settings.lr:g}.",
        f"COST: {cost.delta} Δθ, trigger {cost.trigger.name}, γ = {cost.gamma:g}, δ = {cost.radius:g}, {cost.samples} "
        f"perturbations, {cost.inner_steps} inner Adam steps at {cost.inner_lr:g}, at most one teleport in {cost.cooldown:,} "
        f"steps from step {cost.start_step:,} on{ending}, losses "
        f"{'relative to their size' if cost.relative else 'as they are'}, history {cost.history}, {guard}.",
    ]
    if left:
        sentences.append(f"{left} of the runs with COST had been on the set before and are not at the end; they do not count.")
    return " ".join(sentences)


def as_numbers(table: Sequence[CostToyOutcome], trajectories: CostToyTrajectories) -> dict[str, Any]:
    """Settings, table, ends of all trajectories and all attempts, as JSON values."""
    settings = asdict(trajectories.settings)
    settings["teleporting"]["trigger"] = trajectories.settings.teleporting.trigger.name
    return {
        "settings": settings,
        "tolerance": TOLERANCE,
        "outcomes": [asdict(outcome) for outcome in table],
        "trajectories": [
            {**asdict(row), "end": end} for row, end in zip(trajectories.rows, trajectories.positions[-1].tolist(), strict=True)
        ],
        "attempts": [asdict(attempt) for attempt in trajectories.attempts],
    }


def _count(steps: float | None) -> str:
    return "–" if steps is None else f"{steps:,.0f}"
