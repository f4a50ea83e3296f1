"""The two small maps that the thesis builds its flow from: for vectors and for feature maps."""

from __future__ import annotations

from torch import nn

from equipoise.errors import InputError

__all__ = ["pointwise_map", "vector_map"]


def vector_map(size: int, hidden: int | None = None) -> nn.Sequential:
    """FC – LeakyReLU – FC on vectors ``[..., size]`` (thesis, section 5.5, Office-31, Office-Home and CelebA).

    Args:
        size: entries of a vector, in and out.
        hidden: units in between; ``size`` if left out, as in the thesis.

    Raises:
        InputError: a number below 1.

    Example:
        >>> import torch
        >>> vector_map(50)(torch.zeros(7, 50)).shape
        torch.Size([7, 50])
    """
    hidden = _positive(size, hidden)
    return nn.Sequential(nn.Linear(size, hidden), nn.LeakyReLU(), nn.Linear(hidden, size))


def pointwise_map(channels: int, hidden: int | None = None) -> nn.Sequential:
    """1×1 convolution – LeakyReLU – 1×1 convolution on maps ``[N, channels, H, W]`` (thesis, section 5.5, NYUv2).

    Args:
        channels: of a map, in and out.
        hidden: channels in between; ``channels`` if left out, as in the thesis.

    Raises:
        InputError: a number below 1.

    Example:
        >>> import torch
        >>> pointwise_map(8)(torch.zeros(2, 8, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """
    hidden = _positive(channels, hidden)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(), nn.Conv2d(hidden, channels, 1))


def _positive(size: int, hidden: int | None) -> int:
    hidden = size if hidden is None else hidden
    for name, value in (("size", size), ("hidden", hidden)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number from 1 on; got {value!r}")
    return hidden
