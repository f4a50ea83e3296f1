"""Makes the figures: runs what is missing, then draws and tabulates what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from equipoise.errors import InputError
from equipoise.study.files import plain, read_json, write_json, write_whole
from equipoise_papers.figures.asmg.settings import Run, Settings
from equipoise_papers.figures.asmg.table import table
from equipoise_papers.figures.asmg.trajectory import trajectory

__all__ = ["make"]

Told = Callable[[str], object]


def make(settings: Settings, folder: Path, told: Told) -> str:
    """Writes ``by-samples.png``, ``by-dimension.png``, ``table.md`` and a JSON file a run into a folder.

    Runs whose files are there are not run again, so an interrupted figure goes on where it was.

    Args:
        settings: what to run.
        folder: where to.
        told: takes a line on each run that has ended.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder holds runs of other settings.
    """
    shared = plain({name: value for name, value in asdict(settings).items() if name in ("iterations", "seconds", "target")})
    before = read_json(folder / "settings.json")
    if before is not None and before != shared:
        raise InputError(f"{folder} holds runs with {before}, and now it is {shared}; take another folder")
    write_json(folder / "settings.json", shared)
    results: dict[Run, dict[str, Any]] = {}
    runs = settings.runs()
    for number, run in enumerate(runs, 1):
        path = folder / "runs" / f"{run.key}.json"
        result = read_json(path)
        if result is None:
            result = plain(trajectory(run, settings))
            write_json(path, result)
            told(
                f"[{number}/{len(runs)}] {run.cell}, {run.method}, seed {run.seed}: ℰ = {_number(result['final'])} after "
                f"{result['iterations'][-1]} iterations, {result['seconds']:.1f} s"
            )
        results[run] = result
    from equipoise_papers.figures.asmg.picture import picture

    picture(settings.by_samples(), results, settings, columns=len(settings.problems)).savefig(
        folder / "by-samples.png", dpi=130
    )
    picture(settings.by_dimension(), results, settings, columns=3).savefig(folder / "by-dimension.png", dpi=130)
    text = table(settings, results)
    write_whole(folder / "table.md", text)
    return text


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"
