"""DeepLab: dilated features, and atrous spatial pyramid pooling for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from equipoise.nets.outputs import NYUV2, Output, as_outputs, module_per_task
from equipoise.nets.resnet import ResNet

__all__ = ["ASPP", "ASPPHead", "DeepLab"]


def _convolution(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Keeps the size; batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """Looks at features through a 1×1 convolution, dilated 3×3 ones and their mean over the image, side by side.

    In training the mean's batch normalisation needs two images or more. Rates are (12, 24, 36) for features eight times smaller
    than the image; each branch, and the result, has ``channels``.
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


class DeepLab(nn.Module):
    """A dilated residual network that all tasks share, atrous spatial pyramid pooling for each, upsampling to the image.

    The network that LibMTL's studies of NYUv2 and Cityscapes call DeepLabV3+ (hard parameter sharing on a dilated ResNet-50,
    output stride 8): like their code it has no second decoder fed by early features, which the "+" stands for elsewhere.
    It has 71,888,721 parameters for NYUv2 and 55,760,968 for Cityscapes.

    Args:
        tasks: task → what it predicts: an :class:`~equipoise.nets.Output`, or a number of channels.
        encoder: maps without a classifier; a ResNet-50 of output stride 8 by default. Load its weights before or after:
            ``load_weights(network.features, path)``.
        channels: inside the heads.
        rates: dilation of the heads' pyramid.
        dropout: probability, after the pyramid.

    Attributes:
        features: the encoder, ``[N, 3, H, W]`` → ``[N, encoder.channels, H/8, W/8]``.
        heads: task → head.

    Raises:
        InputError: tasks that cannot be used.

    Example:
        >>> import torch
        >>> network = DeepLab(NYUV2, ResNet(18, classifier=False, output_stride=8, width=2), channels=4)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(2, 3, 32, 48)).items()}
        {'semantic': (2, 13, 32, 48), 'depth': (2, 1, 32, 48), 'normal': (2, 3, 32, 48)}
    """

    def __init__(
        self,
        tasks: Mapping[str, Output | int] = NYUV2,
        encoder: ResNet | None = None,
        *,
        channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.outputs = as_outputs(tasks)
        self.features = ResNet(50, classifier=False, output_stride=8) if encoder is None else encoder
        self.heads = module_per_task(
            "heads",
            {
                task: ASPPHead(self.features.channels, output.channels, channels=channels, rates=rates, dropout=dropout)
                for task, output in self.outputs.items()
            },
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            image: ``[N, 3, H, W]``.

        Returns:
            Task → ``[N, channels, H, W]``: the head's maps, upsampled bilinearly, then finished as its output says.
        """
        features = self.features(image)
        size = image.shape[-2:]
        return {
            task: self.outputs[task].finish(interpolate(head(features), size, mode="bilinear", align_corners=True))
            for task, head in self.heads.items()
        }
