"""What lies on tables and cupboards."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.rooms.small import book_stack, trinket
from equipoise_papers.scenes.rooms.thing import Thing

__all__ = ["laid"]


def laid(generator: np.random.Generator, thing: Thing, spots: list[tuple[float, float, float]]) -> None:
    """Puts books or small things on some of the spots."""
    for x, y, z in spots:
        roll = generator.random()
        if roll < 0.35:
            thing.add(book_stack(generator, int(generator.integers(1, 4))), (x, y, z))
        elif roll < 0.8:
            thing.add(trinket(generator), (x, y, z))
