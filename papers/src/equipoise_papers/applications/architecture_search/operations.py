"""The operations that an edge of the cell may be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from equipoise.errors import InputError, near_misses

__all__ = ["OPERATIONS", "operation", "parameter_counts"]


def _convolution(channels: int, *layers: nn.Module) -> nn.Module:
    # No learned scale and no batch statistics: the parameters are the kernels', and a sample's output is its own.
    return nn.Sequential(nn.ReLU(), *layers, nn.GroupNorm(1, channels, affine=False))


def _kernel(channels: int, size: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(channels, channels, size, padding=size // 2, groups=groups, bias=False)


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "skip": lambda channels: nn.Identity(),
    "pool": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "conv1": lambda channels: _convolution(channels, _kernel(channels, 1)),
    "separable3": lambda channels: _convolution(channels, _kernel(channels, 3, channels), _kernel(channels, 1)),
    "conv3": lambda channels: _convolution(channels, _kernel(channels, 3)),
}
"""Name → what makes it for a number of channels C; parameters: 0, 0, C², 9C + C², 9C². All keep the image's size."""


def operation(name: str, channels: int) -> nn.Module:
    """One of :data:`OPERATIONS`.

    Raises:
        InputError: an unknown name.
    """
    if name not in OPERATIONS:
        raise InputError(f'unknown operation "{name}"; expected one of {", ".join(OPERATIONS)}.{near_misses(name, OPERATIONS)}')
    return OPERATIONS[name](channels)


def parameter_counts(channels: int) -> Tensor:
    """n_o: parameters of every operation ``[operations]``, in the order of :data:`OPERATIONS`.

    Example:
        >>> parameter_counts(8).tolist()
        [0.0, 0.0, 64.0, 136.0, 576.0]
    """
    with torch.device("meta"):
        made = [make(channels) for make in OPERATIONS.values()]
    return torch.tensor([float(sum(parameter.numel() for parameter in one.parameters())) for one in made])
