"""Runs the experiment and writes what came out: pictures, table, numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise_papers.figures.cost_toy.pictures import balancers_picture, front_picture, plane_picture, surfaces_picture
from equipoise_papers.figures.cost_toy.run import Outcome, Trajectories, outcomes, run
from equipoise_papers.figures.cost_toy.settings import Settings
from equipoise_papers.figures.folder import made_folder
from equipoise_papers.toys import TOLERANCE

__all__ = ["HEADER", "Made", "as_json", "as_markdown", "caption", "cells", "make", "totals"]

_DPI = 150


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        outcomes: the rows of the table.
        caption: how the numbers came about.
        files: everything that was written.
    """

    outcomes: list[Outcome]
    caption: str
    files: list[Path]


def make(settings: Settings, folder: Path, told: Callable[[int], None] | None = None) -> Made:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: called now and then with the number of steps done.

    Raises:
        InputError: the folder cannot be made, or a balancer cannot be run.
    """
    made_folder(folder)
    trajectories = run(settings, told)
    first = settings.balancers[0]
    pictures = {
        "cost-toy.png": plane_picture(trajectories, first),
        "cost-toy-balancers.png": balancers_picture(trajectories),
        "cost-toy-losses.png": front_picture(trajectories, first),
        "cost-toy-surfaces.png": surfaces_picture(trajectories.problem),
    }
    files = []
    for name, picture in pictures.items():
        picture.savefig(folder / name, dpi=_DPI)
        files.append(folder / name)
    table = outcomes(trajectories)
    for name, content in (("cost-toy.md", as_markdown(table, settings)), ("cost-toy.json", as_json(table, trajectories))):
        (folder / name).write_text(content, encoding="utf-8")
        files.append(folder / name)
    return Made(table, caption(table, settings), files)


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


def cells(outcome: Outcome) -> tuple[str, ...]:
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


def totals(table: Sequence[Outcome]) -> list[tuple[str, ...]]:
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


def as_markdown(table: Sequence[Outcome], settings: Settings) -> str:
    """The table with its caption, as Markdown."""
    lines = [f"| {' | '.join(HEADER)} |", "| --- | --- |" + " ---: |" * (len(HEADER) - 2)]
    lines += [f"| {' | '.join(cells(outcome))} |" for outcome in table]
    lines += [f"| {' | '.join(f'**{cell}**' if cell else '' for cell in row)} |" for row in totals(table)]
    return "\n".join([*lines, "", caption(table, settings), ""])


def caption(table: Sequence[Outcome], settings: Settings) -> str:
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
        f"COST: dense Δθ, trigger {cost.trigger.name}, γ = {cost.gamma:g}, δ = {cost.radius:g}, {cost.samples} perturbations, "
        f"{cost.inner_steps} inner Adam steps at {cost.inner_lr:g}, at most one teleport in {cost.cooldown:,} steps from step "
        f"{cost.start_step:,} on{ending}, losses {'relative to their size' if cost.relative else 'as they are'}, "
        f"history {cost.history}, {guard}.",
    ]
    if left:
        sentences.append(f"{left} of the runs with COST had been on the set before and are not at the end; they do not count.")
    return " ".join(sentences)


def as_json(table: Sequence[Outcome], trajectories: Trajectories) -> str:
    """Settings, table, ends of all trajectories and all attempts, as JSON."""
    settings = asdict(trajectories.settings)
    settings["teleporting"]["trigger"] = trajectories.settings.teleporting.trigger.name
    content: dict[str, Any] = {
        "settings": settings,
        "tolerance": TOLERANCE,
        "outcomes": [asdict(outcome) for outcome in table],
        "trajectories": [
            {**asdict(row), "end": end} for row, end in zip(trajectories.rows, trajectories.positions[-1].tolist(), strict=True)
        ],
        "attempts": [asdict(attempt) for attempt in trajectories.attempts],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _count(steps: float | None) -> str:
    return "–" if steps is None else f"{steps:,.0f}"
