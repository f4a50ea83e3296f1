"""Runs the experiment and writes what came out: pictures, table, numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from equipoise_papers.figures.cost_toy.front import front_picture
from equipoise_papers.figures.cost_toy.outcome import Outcome, outcomes
from equipoise_papers.figures.cost_toy.plane import balancers_picture, plane_picture
from equipoise_papers.figures.cost_toy.run import run
from equipoise_papers.figures.cost_toy.settings import Settings
from equipoise_papers.figures.cost_toy.surfaces import surfaces_picture
from equipoise_papers.figures.cost_toy.table import as_json, as_markdown, caption
from equipoise_papers.figures.folder import made_folder

__all__ = ["Made", "make"]

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
