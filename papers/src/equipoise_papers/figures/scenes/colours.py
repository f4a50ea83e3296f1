"""From labels, depths and normals to colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASS_COLOURS", "VOID_COLOUR", "of_depth", "of_labels", "of_normals"]

# Walls and other large surfaces pale, things strong, so that the eye finds the things first.
CLASS_COLOURS = {
    "rooms": (
        "#D55E00",  # bed
        "#E6B800",  # books
        "#F2F2EC",  # ceiling
        "#0072B2",  # chair
        "#C2A98A",  # floor
        "#7A4A21",  # furniture
        "#E377C2",  # objects
        "#009E73",  # picture
        "#8E44AD",  # sofa
        "#56B4E9",  # table
        "#222222",  # tv
        "#B9C3CC",  # wall
        "#A6E3F5",  # window
    ),
    "streets": (
        "#A58BB5",  # flat
        "#8C8C8C",  # construction
        "#E69F00",  # object
        "#3F8F3F",  # nature
        "#A9D5F2",  # sky
        "#D7191C",  # human
        "#123F8C",  # vehicle
    ),
}
VOID_COLOUR = "#FFFFFF"


def of_labels(label: NDArray[Any], kind: str) -> NDArray[Any]:
    """Labels ``[H, W]`` to colours ``[H, W, 3]``."""
    from matplotlib.colors import to_rgb

    table = np.array([to_rgb(colour) for colour in (*CLASS_COLOURS[kind], VOID_COLOUR)])
    return np.asarray(table[label])


def of_depth(nearness: NDArray[Any], low: float, high: float, there: NDArray[Any]) -> NDArray[Any]:
    """How near things are ``[H, W]``, from ``low`` to ``high``, to colours, bright is near; white where nothing is there."""
    from matplotlib import colormaps

    share = np.clip((nearness - low) / (high - low), 0, 1)
    colours = np.asarray(colormaps["viridis"](share))[..., :3]
    return np.where(there[..., None], colours, 1.0)


def of_normals(normal: NDArray[Any]) -> NDArray[Any]:
    """Normals ``[H, W, 3]`` to colours: red to the right, green upwards, blue towards the viewer; white where there is none."""
    return np.where((normal != 0).any(-1, keepdims=True), np.clip(normal / 2 + 0.5, 0, 1), 1.0)
