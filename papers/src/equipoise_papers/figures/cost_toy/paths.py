"""A trajectory as pieces to draw: between two jumps the parameters move continuously."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise_papers.figures.cost_toy.run import Trajectories

__all__ = ["Path", "path"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """One trajectory.

    Attributes:
        pieces: positions between teleports, each ``[t, 2]``.
        jumps: a teleport each, from where to where, ``[2, 2]``.
    """

    pieces: tuple[Array, ...]
    jumps: tuple[Array, ...]

    @property
    def start(self) -> Array:
        """Where it begins, ``[2]``."""
        first: Array = self.pieces[0][0]
        return first

    @property
    def end(self) -> Array:
        """Where it ends, ``[2]``."""
        last: Array = self.pieces[-1][-1]
        return last


def path(trajectories: Trajectories, row: int) -> Path:
    """Cuts a trajectory at its teleports."""
    positions, steps = trajectories.positions[:, row], trajectories.steps
    pieces, jumps = [], []
    begin, head = 0, positions[:0]
    for attempt in trajectories.attempts:
        if attempt.row != row or not attempt.accepted:
            continue
        # What was recorded after step s + 1 was recorded after the jump that follows step s.
        cut = int(np.searchsorted(steps, attempt.step + 1))
        jump = np.asarray([attempt.origin, attempt.landing])
        pieces.append(np.concatenate((head, positions[begin:cut], jump[:1])))
        jumps.append(jump)
        begin, head = cut, jump[1:]
    pieces.append(np.concatenate((head, positions[begin:])))
    return Path(tuple(pieces), tuple(jumps))
