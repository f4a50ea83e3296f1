"""The two residual blocks of He, Zhang, Ren and Sun (2016), with dilation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

__all__ = ["BasicBlock", "Block", "Bottleneck"]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Keeps the size but for the stride; batch normalisation follows, so there is no bias."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class Block(nn.Module):
    """x ↦ ReLU(x + residual(x)), where x passes a 1×1 convolution if its shape has to change.

    Attributes are named as in published state dicts.

    Args:
        inputs: channels of x.
        width: channels inside; the result has ``growth`` times as many.
        stride: 2 to halve the size.
        dilations: of the first 3×3 convolution, and of a second one.
    """

    growth: ClassVar[int]

    def __init__(self, inputs: int, width: int, stride: int, dilations: Sequence[int]) -> None:
        super().__init__()
        outputs = width * self.growth
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        self._build(inputs, width, stride, dilations)
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the block."""
        kept = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(self._residual(x) + kept)
        return result

    def _build(self, inputs: int, width: int, stride: int, dilations: Sequence[int]) -> None:
        raise NotImplementedError

    def _residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class BasicBlock(Block):
    """Two 3×3 convolutions."""

    growth = 1

    def _build(self, inputs: int, width: int, stride: int, dilations: Sequence[int]) -> None:
        first, second = dilations
        self.conv1 = _convolution(inputs, width, 3, stride, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, 1, second)
        self.bn2 = nn.BatchNorm2d(width)

    def _residual(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return result


class Bottleneck(Block):
    """A 1×1, a 3×3 and a 1×1 convolution, the last with four times the channels; the 3×3 one has the stride."""

    growth = 4

    def _build(self, inputs: int, width: int, stride: int, dilations: Sequence[int]) -> None:
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride, dilations[0])
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, width * self.growth, 1)
        self.bn3 = nn.BatchNorm2d(width * self.growth)

    def _residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        result: Tensor = self.bn3(self.conv3(x))
        return result
