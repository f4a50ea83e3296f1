"""Runs what is missing, then draws and tabulates what is there."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from equipoise.markdown import table as markdown
from equipoise.store import write_whole
from equipoise.study.pictures.style import COLORS, GREY, grid
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.asmg.run import problem, trajectory
from equipoise_papers.figures.asmg.settings import ASMGCell, ASMGRun, ASMGSettings
from equipoise_papers.figures.outputs import KeptRuns

__all__ = ["make", "picture", "table"]


def make(settings: ASMGSettings, folder: Path, told: Told = silent) -> str:
    """Writes ``by-samples.png``, ``by-dimension.png``, ``table.md`` and a JSON file per run into a folder.

    Runs whose files are there are not run again, so an interrupted figure goes on where it was.

    Args:
        settings: what to run.
        folder: where to.
        told: takes a line on each run that has ended.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made, or holds runs of other settings.
    """
    kept = KeptRuns(folder, {name: getattr(settings, name) for name in ("iterations", "seconds", "target")})
    results: dict[ASMGRun, dict[str, Any]] = {}
    runs = settings.runs()
    for number, run in enumerate(runs, 1):
        result = kept.find(run.key)
        if result is None:
            result = kept.keep(run.key, trajectory(run, settings))
            told(
                f"[{number}/{len(runs)}] {run.cell}, {run.method}, seed {run.seed}: ℰ = {_in_words(result['final'])} after "
                f"{result['iterations'][-1]} iterations, {result['seconds']:.1f} s"
            )
        results[run] = result
    picture(settings.by_samples(), results, settings, columns=len(settings.problems)).savefig(
        folder / "by-samples.png", dpi=130
    )
    picture(settings.by_dimension(), results, settings, columns=3).savefig(folder / "by-dimension.png", dpi=130)
    text = table(settings, results)
    write_whole(folder / "table.md", text)
    return text


def _in_words(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


_NAMES = {"asmg": "ASMG", "asmg-ew": "ASMG-EW", "cma-es": "CMA-ES", "mmes": "MMES", "es": "ES", "bes": "BES"}


def picture(
    cells: Sequence[ASMGCell], results: Mapping[ASMGRun, dict[str, Any]], settings: ASMGSettings, *, columns: int
) -> Figure:
    """Median over seeds; a run that was stopped keeps its last value, marked by the end of the solid line.

    Args:
        cells: the panels.
        results: of all runs.
        settings: with the methods and seeds.
        columns: panels side by side.
    """
    figure, panels = grid(len(cells), columns=columns, width=3.3, height=2.6, sharey=True, sharex=True)
    floor = settings.target / 3
    for position, (cell, axes) in enumerate(zip(cells, panels, strict=True)):
        # Marks no method but the aim that the thesis speaks of.
        axes.axhline(1e-4, color=GREY, linewidth=1.0, linestyle=":")
        for place, method in enumerate(settings.methods):
            runs = [results[ASMGRun(cell, method, seed)] for seed in settings.seeds]
            ends = max(run["iterations"][-1] for run in runs)
            where = np.unique(np.concatenate([run["iterations"] for run in runs]))
            curves = []
            for run in runs:
                values = np.array([np.nan if value is None else value for value in run["distances"]])
                curves.append(np.interp(where, run["iterations"], np.log(np.maximum(values, floor))))
            axes.plot(
                where,
                np.exp(np.median(curves, axis=0)),
                color=COLORS[place % len(COLORS)],
                linewidth=2.0 if method.startswith("asmg") else 1.4,
                label=_NAMES.get(method, method),
                zorder=4 if method.startswith("asmg") else 3,
            )
            if ends < settings.iterations:
                axes.plot(ends, np.exp(np.median(curves, axis=0)[-1]), ".", color=COLORS[place % len(COLORS)], zorder=5)
        axes.set_yscale("log")
        # BES diverges beyond every other curve.
        axes.set_ylim(floor / 2, 1e3)
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        title = problem(cell.problem, cell.dimension).title
        axes.set_title(f"{title}\nd = {cell.dimension}, N = {cell.samples}", loc="left", fontsize=9)
        if position + columns >= len(cells):
            axes.set_xlabel("iteration")
        if position % columns == 0:
            axes.set_ylabel("distance ℰ")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def table(settings: ASMGSettings, results: Mapping[ASMGRun, dict[str, Any]]) -> str:
    """One row per panel, one column per method: the median final ℰ over seeds, or when the last fell below 1e-4."""
    rows = [
        [cell.problem, str(cell.dimension), str(cell.samples)]
        + [_cell([results[ASMGRun(cell, method, seed)] for seed in settings.seeds]) for method in settings.methods]
        for cell in settings.by_samples() + settings.by_dimension()
    ]
    return markdown(["problem", "d", "N", *settings.methods], rows) + "\n"


def _cell(runs: list[dict[str, Any]]) -> str:
    reached = [run["reached"] for run in runs if run["reached"] is not None]
    if len(reached) == len(runs):
        return f"**< 1e-4** at {max(reached)}"
    finals = [run["final"] for run in runs]
    if any(value is None for value in finals):
        return "not finite"
    middle = statistics.median(finals)
    last = min(run["iterations"][-1] for run in runs)
    stopped = f", stopped at {last}" if any(run["ended"] == "seconds" for run in runs) else ""
    return f"{middle:.1e}{stopped}"
