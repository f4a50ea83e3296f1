"""The network of the CelebA benchmark: nine layers, and a head for each of the 40 attributes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from equipoise.data.celeba import ATTRIBUTES
from equipoise.errors import InputError
from equipoise.nets.outputs import module_per_task

__all__ = ["CELEBA_ATTRIBUTES", "CelebANet"]

CELEBA_ATTRIBUTES = ATTRIBUTES
"""The 40 attributes, in the data set's order and spelling."""


class CelebANet(nn.Module):
    """Seven 3×3 convolutions and two linear layers, all with batch normalisation, then one linear head per attribute.

    The network of FAMO's study of CelebA (Liu, Feng, Stone and Liu, 2023) and of those that follow it: 64, 128, 128, 256,
    256, 512 and 512 channels, 2×2 pooling after the first, third and fifth convolution, the mean over all places at the
    end; 5,197,160 parameters. Heads give logits, for ``binary_cross_entropy_with_logits``; the released code puts a sigmoid
    on them and takes the cross-entropy of the result, which is the same but for rounding.

    Args:
        tasks: names of the attributes.
        width: channels of the first convolution; the others have 2, 4 and 8 times as many, the linear layers 8 times.

    Attributes:
        features: what the tasks share, ``[N, 3, H, W]`` → ``[N, 8 · width]``.
        heads: task → head.

    Raises:
        InputError: no tasks, or a width below 1.

    Example:
        >>> import torch
        >>> out = CelebANet(width=2)(torch.zeros(5, 3, 64, 64))
        >>> len(out), tuple(out["Smiling"].shape)
        (40, (5,))
    """

    def __init__(self, tasks: Sequence[str] = CELEBA_ATTRIBUTES, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"width must be a number of channels from 1 on; got {width}")
        top = 8 * width
        self.features = nn.Sequential(
            *_convolution(3, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 4 * width),
            *_convolution(4 * width, 4 * width),
            nn.MaxPool2d(2),
            *_convolution(4 * width, top),
            *_convolution(top, top),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            *_linear(top),
            *_linear(top),
        )
        self.heads = module_per_task("heads", {task: nn.Linear(top, 1) for task in tasks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every attribute's logit.

        Args:
            image: ``[N, 3, H, W]``, 64×64 in the study; N from 2 on in training, for the batch normalisation.

        Returns:
            Attribute → ``[N]``.
        """
        features = self.features(image)
        return {task: head(features).squeeze(-1) for task, head in self.heads.items()}


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _linear(size: int) -> tuple[nn.Module, ...]:
    return nn.Linear(size, size, bias=False), nn.BatchNorm1d(size), nn.ReLU(inplace=True)
