"""Atrous spatial pyramid pooling (Chen, Papandreou, Schroff and Adam, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ASPP", "ASPPHead"]


def _convolution(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Keeps the size; batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """Looks at features through a 1×1 convolution, dilated 3×3 ones and their mean over the image, side by side.

    In training the mean's batch normalisation needs two images or more.

    Args:
        inputs: channels of the features.
        channels: of each of the branches, and of the result.
        rates: dilation of the 3×3 convolutions; (12, 24, 36) for features eight times smaller than the image.
        dropout: probability, on the result.
    """

    def __init__(self, inputs: int, channels: int, rates: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_convolution(inputs, channels), *(_convolution(inputs, channels, 3, rate) for rate in rates)]
        )
        self.image = _convolution(inputs, channels)
        self.project = nn.Sequential(_convolution((len(self.branches) + 1) * channels, channels), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        """Maps ``[N, inputs, h, w]`` to ``[N, channels, h, w]``."""
        seen = [branch(features) for branch in self.branches]
        seen.append(self.image(features.mean((-2, -1), keepdim=True)).expand_as(seen[0]))
        result: Tensor = self.project(torch.cat(seen, 1))
        return result


class ASPPHead(nn.Sequential):
    """Pyramid pooling, a 3×3 convolution and a 1×1 one: ``[N, inputs, h, w]`` → ``[N, outputs, h, w]``.

    Args:
        inputs: channels of the features.
        outputs: channels of the result.
        channels: in between.
        rates: dilation of the 3×3 convolutions of the pyramid.
        dropout: probability, after the pyramid.

    Example:
        >>> tuple(ASPPHead(16, 13, channels=4)(torch.zeros(2, 16, 6, 8)).shape)
        (2, 13, 6, 8)
    """

    def __init__(
        self, inputs: int, outputs: int, *, channels: int = 256, rates: Sequence[int] = (12, 24, 36), dropout: float = 0.5
    ) -> None:
        super().__init__(
            ASPP(inputs, channels, rates, dropout), _convolution(channels, channels, 3), nn.Conv2d(channels, outputs, 1)
        )
