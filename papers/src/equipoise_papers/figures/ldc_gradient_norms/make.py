"""Runs the experiment and writes what came out: picture, table, numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from equipoise.markdown import table
from equipoise.study.pictures.style import COLORS, INK, grid
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.ldc_gradient_norms.run import Norms, run
from equipoise_papers.figures.ldc_gradient_norms.settings import LDCGradientNormsSettings
from equipoise_papers.figures.outputs import made_folder, write_outputs

__all__ = ["make", "picture"]

_THINNED = 200  # so many points of the curves are kept in the file of numbers


def make(settings: LDCGradientNormsSettings, folder: Path, told: Told = silent) -> str:
    """Makes the figure.

    Args:
        settings: what to run.
        folder: where everything goes; made if it does not exist.
        told: takes a line now and then.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: the folder cannot be made.
    """
    made_folder(folder)
    norms = run(settings, told)
    text = _table(norms)
    every = max(1, len(norms.here) // _THINNED)
    numbers = {
        "settings": asdict(settings),
        "steps": list(range(1, len(norms.here) + 1, every)),
        "norm": norms.here[::every].tolist(),
        "norm at solution": norms.there[::every].tolist(),
        "metrics": {"single loop": norms.metrics[0], "double loop": norms.metrics[1]},
    }
    write_outputs(folder, "ldc-gradient-norms", {"": picture(norms)}, text, numbers)
    return text


def _table(norms: Norms) -> str:
    ratios = norms.ratios
    low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
    metrics = list(norms.metrics[0])
    rows = [
        [name, *(f"{values[metric]:.4g}" for metric in metrics), f"{seconds * 1e3:.2f}"]
        for name, values, seconds in zip(("single", "double"), norms.metrics, norms.seconds, strict=True)
    ]
    lines = [
        f"{norms.settings.problem}: ‖∇_W g(W, x)‖ / ‖∇_W g(W, z_N)‖ over {len(ratios):,} steps: median {middle:.3g}, "
        f"mean {ratios.mean():.3g}, "
        f"5 % to 95 %: {low:.3g} to {high:.3g}.",
        "",
        table(["loop", *metrics, "ms per step"], rows),
    ]
    largest = np.abs(norms.shares[0] - norms.shares[1]).max()
    lines += ["", f"The shares of the two loops never differ by more than {largest:.3f}.", ""]
    return "\n".join(lines)


def picture(norms: Norms) -> Figure:
    """The norms on the left, the shares of both loops on the right."""
    figure, (left, right) = grid(2, columns=2, width=5.0, height=3.6)
    steps = np.arange(1, len(norms.here) + 1)
    left.plot(steps, norms.here, color=COLORS[0], linewidth=1.0, label=r"$\|\nabla_W\, g(W, x)\|$")
    left.plot(steps, norms.there, color=COLORS[1], linewidth=1.0, label=r"$\|\nabla_W\, g(W, z_N)\|$")
    left.set_yscale("log")
    # In the first step all rescaled losses are equal, and the gradient of equal losses vanishes up to rounding; that of
    # logarithms does so, exactly, in the first step of each epoch.
    shown = np.concatenate((norms.here[1:], norms.there))
    left.set_ylim(bottom=0.3 * float(shown[shown > 0].min(initial=1.0)))
    left.set_xlabel("step")
    left.set_title(f"gradient of the router, N = {norms.settings.inner_steps}")
    left.legend(frameon=False, fontsize=9)
    for number, task in enumerate(norms.tasks):
        color = COLORS[number % len(COLORS)]
        right.plot(norms.shares[0, :, number], color=color, linewidth=1.5, label=task)
        right.plot(norms.shares[1, :, number], color=color, linewidth=1.5, linestyle=":")
    right.plot([], [], color=INK, linewidth=1.5, label="single loop")
    right.plot([], [], color=INK, linewidth=1.5, linestyle=":", label="double loop")
    right.set_xlabel("step")
    right.set_title(r"shares $\sigma(W)$")
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if len(norms.tasks) > 6 else {}
    right.legend(frameon=False, fontsize=9, **beside)
    return figure
