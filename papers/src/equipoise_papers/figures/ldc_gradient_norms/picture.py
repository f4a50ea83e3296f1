"""Both norms over training, and what the term that the single loop drops does to the shares."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from equipoise.study.pictures.style import COLOURS, INK, grid
from equipoise_papers.figures.ldc_gradient_norms.run import Norms

__all__ = ["picture"]


def picture(norms: Norms) -> Figure:
    """The norms on the left, the shares of both loops on the right."""
    figure, (left, right) = grid(2, columns=2, width=5.0, height=3.6)
    steps = np.arange(1, len(norms.here) + 1)
    left.plot(steps, norms.here, color=COLOURS[0], linewidth=1.0, label=r"$\|\nabla_W\, g(W, x)\|$")
    left.plot(steps, norms.there, color=COLOURS[1], linewidth=1.0, label=r"$\|\nabla_W\, g(W, z_N)\|$")
    left.set_yscale("log")
    # In the first step all rescaled losses are equal, and the gradient of equal losses vanishes up to rounding.
    left.set_ylim(bottom=0.3 * float(min(norms.here[1:].min(initial=np.inf), norms.there.min())))
    left.set_xlabel("step")
    left.set_title(f"gradient of the router, N = {norms.settings.inner_steps}")
    left.legend(frameon=False, fontsize=9)
    for number, task in enumerate(norms.tasks):
        colour = COLOURS[number % len(COLOURS)]
        right.plot(norms.shares[0, :, number], color=colour, linewidth=1.5, label=task)
        right.plot(norms.shares[1, :, number], color=colour, linewidth=1.5, linestyle=":")
    right.plot([], [], color=INK, linewidth=1.5, label="single loop")
    right.plot([], [], color=INK, linewidth=1.5, linestyle=":", label="double loop")
    right.set_xlabel("step")
    right.set_title(r"shares $\sigma(W)$")
    right.legend(frameon=False, fontsize=9)
    return figure
