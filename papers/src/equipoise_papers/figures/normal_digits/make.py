"""Trains what is missing, then draws and tabulates what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, permutations
from pathlib import Path
from typing import Any

from equipoise.errors import InputError
from equipoise.metrics import delta_m
from equipoise.study.files import plain, read_json, rounded, write_json, write_whole
from equipoise.study.problems import find_problem
from equipoise_papers.figures.folder import made_folder
from equipoise_papers.figures.normal_digits.run import train
from equipoise_papers.figures.normal_digits.settings import Run, Settings
from equipoise_papers.figures.normal_digits.table import table

__all__ = ["make"]

Told = Callable[[str], object]
_DPI = 150


def make(settings: Settings, folder: Path, told: Told = lambda line: None) -> str:
    """Writes ``table.md``, ``positions.png``, ``relations.png`` and a JSON file a training into a folder.

    Trainings whose files are there are not run again, so an interrupted figure goes on where it was.

    Args:
        settings: what to run.
        folder: where to; made if it does not exist.
        told: takes a line on each training that has ended.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made, or holds trainings of other settings.
    """
    made_folder(folder)
    shared = plain(settings.identity())
    before = read_json(folder / "settings.json")
    if before is not None and before != shared:
        raise InputError(f"{folder} holds trainings with {before}, and now it is {shared}; take another folder")
    write_json(folder / "settings.json", shared)

    def result(run: Run) -> dict[str, Any]:
        path = folder / "runs" / f"{run.key}.json"
        found: dict[str, Any] | None = read_json(path)
        if found is None:
            found = rounded(plain(train(run, settings)))
            write_json(path, found)
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in found["test"].items())
            told(f"{run.key}: {metrics}; {found['seconds'] * 1e3:.2f} ms a step")
        return found

    chosen = _best_order(settings, result) if "different" in settings.networks else None
    results = {
        network: [result(Run(network, seed, chosen if network == "different" else None)) for seed in settings.seeds]
        for network in settings.networks
    }
    from equipoise_papers.figures.normal_digits.pictures import positions_picture, relations_picture

    tasks = find_problem("digits").tasks
    flowing = {network: runs for network, runs in results.items() if network in ("normal", "positive", "first-order")}
    if flowing:
        positions_picture(flowing, tasks).savefig(folder / "positions.png", dpi=_DPI)
    if "normal" in results:
        relations_picture(results["normal"], tasks).savefig(folder / "relations.png", dpi=_DPI)
    text = table(settings, results, tasks, chosen)
    write_whole(folder / "table.md", text)
    return text


def _best_order(settings: Settings, result: Callable[[Run], dict[str, Any]]) -> tuple[float, ...]:
    """Which task sits at which of the constant positions: the order with the smallest Δm on the validation data."""
    metrics = find_problem("digits").metrics
    seed = settings.selection_seed
    baseline = result(Run("hps", seed))["validation"]
    orders = list(islice(permutations(settings.fixed), settings.orders))
    drops = {
        order: delta_m(result(replace(Run("different", seed), positions=order))["validation"], baseline, metrics)
        for order in orders
    }
    return min(orders, key=lambda order: drops[order])
