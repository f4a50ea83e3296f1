"""Residual networks whose state dicts have the usual names, so that published ImageNet weights fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from equipoise.errors import InputError

__all__ = ["BasicBlock", "Block", "Bottleneck", "ResNet"]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Keeps the size but for the stride; batch normalisation follows, so there is no bias."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class Block(nn.Module):
    """x ↦ ReLU(x + residual(x)), where x passes a 1×1 convolution if its shape has to change.

    Attributes are named as in published state dicts. Inside are ``width`` channels, the result has ``growth`` times as many;
    ``dilations`` are those of the first 3×3 convolution, and of a second one.
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


_DEPTHS: dict[int, tuple[type[Block], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
# Output stride → dilation of the four layers. A layer that would halve the size and is dilated instead keeps the dilation
# of the layer before in its first 3×3 convolution, which is where it would have halved (Yu, Koltun and Funkhouser, 2017).
_DILATIONS = {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}


class ResNet(nn.Module):
    """A residual network (He, Zhang, Ren and Sun, 2016) with the names and shapes of the usual published weights.

    ResNet-18 has 11,689,512 parameters and ResNet-50 25,557,032, the classifier of 1000 classes included; dilation changes
    nothing about them. The stride of a bottleneck sits at its 3×3 convolution, as in the published weights.
    :func:`~equipoise.nets.load_weights` loads them from a file.

    Args:
        depth: 18 or 50.
        classifier: whether there is one, ``fc``; without it the network is an encoder.
        classes: of the classifier.
        pool: without a classifier, give the mean over all places, ``[N, channels]``, instead of maps.
        output_stride: how many times smaller than the image the last maps are: 32; 16 or 8 for a dilated network, whose
            last one or two layers spread their kernels instead of halving the size.
        width: channels of the first layer; published weights are for 64.

    Attributes:
        channels: of the last maps; 512 for ResNet-18 and 2048 for ResNet-50.
        layer_channels: of the maps of all four layers.

    Raises:
        InputError: another depth or output stride, or numbers below 1.

    Example:
        >>> import torch
        >>> encoder = ResNet(18, classifier=False, output_stride=8, width=4)
        >>> tuple(encoder(torch.zeros(1, 3, 64, 96)).shape)
        (1, 32, 8, 12)
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        classifier: bool = True,
        classes: int = 1000,
        pool: bool = False,
        output_stride: int = 32,
        width: int = 64,
    ) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            raise InputError(f"depth must be one of {', '.join(map(str, _DEPTHS))}; got {depth!r}")
        if output_stride not in _DILATIONS:
            raise InputError(f"output_stride must be one of {', '.join(map(str, _DILATIONS))}; got {output_stride!r}")
        if width < 1 or classes < 1:
            raise InputError(f"width and classes must be whole numbers from 1 on; got width={width} and classes={classes}")
        block, repeats = _DEPTHS[depth]
        self.layer_channels = tuple(width * 2**layer * block.growth for layer in range(4))
        self.channels = self.layer_channels[-1]
        self.pool = pool or classifier
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        dilations = _DILATIONS[output_stride]
        layers = []
        for position, (inputs, count, dilation) in enumerate(
            zip((width, *self.layer_channels), repeats, dilations, strict=False)
        ):
            before = dilations[position - 1] if position else 1
            stride = 2 if position and dilation == before else 1
            inside = width * 2**position
            first = block(inputs, inside, stride, (before, dilation))
            further = (block(inside * block.growth, inside, 1, (dilation, dilation)) for _ in range(count - 1))
            layers.append(nn.Sequential(first, *further))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.fc = nn.Linear(self.channels, classes) if classifier else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Computes the logits, or the features.

        Args:
            image: ``[N, 3, H, W]``.

        Returns:
            ``[N, classes]`` with a classifier; otherwise maps ``[N, channels, H / stride, W / stride]``, rounded up, or
            with ``pool`` their means ``[N, channels]``.
        """
        maps = self.maps(image)[-1]
        if not self.pool:
            return maps
        means = maps.mean((-2, -1))
        return means if self.fc is None else self.fc(means)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Computes the maps of all four layers, the largest first.

        Args:
            image: ``[N, 3, H, W]``.
        """
        current = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        found = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            current = layer(current)
            found.append(current)
        return found
