"""ℰ over iterations, a panel a problem and number of samples or dimension, all methods in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from equipoise.study.pictures.style import COLOURS, GREY, grid
from equipoise_papers.figures.asmg.problems import problem
from equipoise_papers.figures.asmg.settings import Cell, Run, Settings

__all__ = ["picture"]

_NAMES = {"asmg": "ASMG", "asmg-ew": "ASMG-EW", "cma-es": "CMA-ES", "mmes": "MMES", "es": "ES", "bes": "BES"}


def picture(cells: Sequence[Cell], results: Mapping[Run, dict[str, Any]], settings: Settings, *, columns: int) -> Figure:
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
            runs = [results[Run(cell, method, seed)] for seed in settings.seeds]
            ends = max(run["iterations"][-1] for run in runs)
            where = np.unique(np.concatenate([run["iterations"] for run in runs]))
            curves = []
            for run in runs:
                values = np.array([np.nan if value is None else value for value in run["distances"]])
                curves.append(np.interp(where, run["iterations"], np.log(np.maximum(values, floor))))
            axes.plot(
                where,
                np.exp(np.median(curves, axis=0)),
                color=COLOURS[place % len(COLOURS)],
                linewidth=2.0 if method.startswith("asmg") else 1.4,
                label=_NAMES.get(method, method),
                zorder=4 if method.startswith("asmg") else 3,
            )
            if ends < settings.iterations:
                axes.plot(ends, np.exp(np.median(curves, axis=0)[-1]), ".", color=COLOURS[place % len(COLOURS)], zorder=5)
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
