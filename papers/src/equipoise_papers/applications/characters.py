"""Rendered characters in the layout of Omniglot: many classes with few drawings of each, on 28×28 pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise_papers.applications.digit_images import DigitImages

__all__ = ["characters"]

_POINTS = 48  # along a stroke: less than a pixel apart


def characters(classes: int = 80, drawings: int = 20, size: int = 28, seed: int = 0) -> DigitImages:
    """Draws characters that were never seen, each by so many hands.

    A character is two to four strokes, cubic Bézier curves that begin where an earlier one passes or anywhere. A drawing of it
    moves the curves' control points a little, turns, stretches and shifts the whole, and takes a pen of its own width. Omniglot
    (Lake et al., 2015) has 1,623 characters with 20 drawings each; these stand for it where nothing can be downloaded.

    Args:
        classes: how many characters.
        drawings: of each.
        size: of the images, in pixels.
        seed: of everything that is drawn.

    Example:
        >>> images = characters(classes=3, drawings=4, seed=1)
        >>> tuple(images.pixels.shape), images.labels.tolist()
        ((12, 1, 28, 28), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = [_drawn(_strokes(generator), drawings, size, generator) for _ in range(classes)]
    return DigitImages(torch.cat(pixels).unsqueeze(1), torch.arange(classes).repeat_interleave(drawings))


def _strokes(generator: torch.Generator) -> Tensor:
    """Control points of one character's strokes ``[strokes, 4, 2]``, in [−1, 1]."""
    count = int(torch.randint(2, 5, (1,), generator=generator))
    points = 1.7 * torch.rand(count, 4, 2, generator=generator) - 0.85
    for stroke in range(1, count):
        if torch.rand(1, generator=generator) < 0.6:  # most strokes touch an earlier one
            curve = _curves(points[stroke - 1 : stroke])[0]
            points[stroke, 0] = curve[int(torch.randint(len(curve), (1,), generator=generator))]
    passed = _curves(points).flatten(0, 1)
    least, most = passed.amin(0), passed.amax(0)
    return (points - (least + most) / 2) * (1.5 / (most - least).max())


def _curves(points: Tensor) -> Tensor:
    """``[…, 4, 2]`` → points along the Bézier curves ``[…, _POINTS, 2]``."""
    t = torch.linspace(0, 1, _POINTS).unsqueeze(1)
    weights = torch.cat([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    return weights @ points


def _drawn(strokes: Tensor, drawings: int, size: int, generator: torch.Generator) -> Tensor:
    """``[drawings, size, size]``."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(drawings, *shape, generator=generator)

    curves = _curves(strokes + 0.05 * normal(*strokes.shape))
    angle, shear = 0.15 * normal(1), 0.1 * normal(1)
    turn = torch.stack([torch.cat([angle.cos(), shear - angle.sin()], 1), torch.cat([angle.sin(), angle.cos()], 1)], 1)
    curves = curves.flatten(1, 2) @ (turn * (1 + 0.08 * normal(1, 2))) + 0.06 * normal(1, 2)
    axis = torch.linspace(-1.1, 1.1, size)
    places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
    distance = torch.cdist(places.expand(drawings, -1, -1), curves).amin(2)
    width = 0.07 * (1 + 0.2 * normal(1)).clamp(min=0.5)
    drawn: Tensor = (1.5 - distance / width).clamp(0, 1).unflatten(1, (size, size))
    return drawn
