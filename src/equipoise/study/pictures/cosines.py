"""How the task gradients lie to each other in the last epoch, one panel a method."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equipoise.study.names import shortened, wrapped
from equipoise.study.pictures.style import INK, grid
from equipoise.study.results import Results

__all__ = ["cosines_picture"]

_MOST = 8  # tasks in a panel: the number of the LDC-MTL paper's figure
_WRITTEN = 5  # up to so many tasks the numbers stand in the fields


def cosines_picture(results: Results) -> Figure | None:
    """Mean cosines between task gradients over the last epoch's steps, means over seeds."""
    tasks = list(range(len(results.tasks)))
    # Of many tasks evenly spaced ones are shown: no choice that could flatter.
    shown = tasks if len(tasks) <= _MOST else [int(place) for place in np.linspace(0, len(tasks) - 1, _MOST).round()]
    matrices = {name: found for name in results.ranking() if (found := _matrix(results, name)) is not None}
    if not matrices:
        return None
    columns = min((4, 3), key=lambda number: -len(matrices) % number)
    figure, panels = grid(len(matrices), columns=columns, width=2.6, height=2.5)
    names = [shortened(results.tasks[place], 10) for place in shown]
    image = None
    for (name, matrix), axes in zip(matrices.items(), panels, strict=True):
        part = matrix[np.ix_(shown, shown)]
        image = axes.imshow(part, vmin=-1, vmax=1, cmap="RdBu")
        axes.grid(False)
        axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(shown)), names, fontsize=8)
        axes.set_title(wrapped(results.short(name), 19), loc="left", fontsize=10, fontweight="bold")
        if len(shown) <= _WRITTEN:
            for (row, column), value in np.ndenumerate(part):
                if np.isfinite(value):
                    colour = "white" if abs(value) > 0.6 else INK
                    text = f"{value:.2f}".replace("-", "−")
                    axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    assert image is not None
    figure.colorbar(image, ax=panels, location="bottom", shrink=0.5, aspect=40, label="cosine")
    return figure


def _matrix(results: Results, method: str) -> NDArray[np.float64] | None:
    found = []
    for record in results.records(method).values():
        pairs = (record["history"][-1]["conflicts"] or {}).get("cosines")
        if pairs is not None:
            found.append(np.array([[np.nan if value is None else value for value in row] for row in pairs]))
    return np.mean(found, axis=0) if found else None
