"""DeepLab with a shared dilated encoder and a pyramid for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from equipoise.nets.deeplab.aspp import ASPPHead
from equipoise.nets.heads import module_a_task
from equipoise.nets.outputs import NYUV2, Output, as_outputs
from equipoise.nets.resnet import ResNet

__all__ = ["DeepLab"]


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
        self.heads = module_a_task(
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
