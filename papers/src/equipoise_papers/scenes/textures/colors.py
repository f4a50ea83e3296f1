"""Colors: linear red, green, blue, 0 to 1, as ``[3]`` or ``[3, N]``."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from equipoise_papers.scenes.shapes import Array

__all__ = ["hue", "mixed", "pick", "shade"]

_T = TypeVar("_T")


def pick(generator: np.random.Generator, choices: Sequence[_T]) -> _T:
    """One of several things, each as likely."""
    return choices[int(generator.integers(len(choices)))]


def hue(
    generator: np.random.Generator,
    hues: tuple[float, float] = (0.0, 1.0),
    saturations: tuple[float, float] = (0.15, 0.6),
    values: tuple[float, float] = (0.25, 0.85),
) -> Array:
    """A random color ``[3]`` within ranges of hue (0 red, 1/3 green, 2/3 blue), saturation and value, made linear."""
    color = colorsys.hsv_to_rgb(generator.uniform(*hues) % 1, generator.uniform(*saturations), generator.uniform(*values))
    return np.asarray(color) ** 2.2


def mixed(first: Array, second: Array, share: Array | float) -> Array:
    """From the first color to the second: ``[3]``, ``[3]`` and shares ``[N]`` give ``[3, N]`` float32."""
    first, second = (np.asarray(color, np.float32).reshape(3, -1) for color in (first, second))
    blend: Array = first + (second - first) * np.asarray(share, np.float32)
    return blend


def shade(color: Array, factor: Array | float) -> Array:
    """A color made darker or brighter: ``[3]`` and factors ``[N]`` give ``[3, N]`` float32."""
    return np.asarray(color, np.float32).reshape(3, -1) * np.asarray(factor, np.float32)
