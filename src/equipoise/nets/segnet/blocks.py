"""The pieces that SegNet and its attention are made of."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from equipoise.errors import InputError

__all__ = ["attention_mask", "check_image", "convolution", "filters_of", "initialise", "prediction_head"]

LEVELS = 5
_GROWTH = (1, 2, 4, 8, 8)


def filters_of(width: int | Sequence[int]) -> tuple[int, ...]:
    """Channels at the five levels.

    Args:
        width: w for channels (w, 2w, 4w, 8w, 8w), or all five.

    Raises:
        InputError: not five, or one below 1.

    Example:
        >>> filters_of(64), filters_of([4, 4, 8, 8, 16])
        ((64, 128, 256, 512, 512), (4, 4, 8, 8, 16))
    """
    filters = tuple(width * factor for factor in _GROWTH) if isinstance(width, int) else tuple(width)
    if len(filters) != LEVELS or any(isinstance(each, bool) or not isinstance(each, int) or each < 1 for each in filters):
        raise InputError(f"width must be one number of channels from 1 on, or five of them; got {width!r}")
    return filters


def check_image(image: Tensor) -> None:
    """Raises where an image cannot be halved five times.

    Raises:
        InputError: no ``[N, 3, H, W]`` with H and W multiples of 32.
    """
    height, width = image.shape[-2:] if image.dim() == 4 else (0, 0)
    if image.dim() != 4 or image.shape[1] != 3 or height % 2**LEVELS or width % 2**LEVELS or not height * width:
        raise InputError(
            f"SegNet halves images five times: they must be [N, 3, H, W] with H and W multiples of {2**LEVELS}; "
            f"got {list(image.shape)}"
        )


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """A 3×3 convolution that keeps the size, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def attention_mask(inputs: int, outputs: int) -> nn.Sequential:
    """Two 1×1 convolutions with batch normalisation, the second ending in a sigmoid: a mask with values in (0, 1)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.Sigmoid(),
    )


def prediction_head(inputs: int, outputs: int) -> nn.Sequential:
    """A 3×3 and a 1×1 convolution, with nothing between them."""
    return nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1), nn.Conv2d(inputs, outputs, 1))


def initialise(network: nn.Module) -> None:
    """Xavier-normal weights and zero biases for every convolution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
