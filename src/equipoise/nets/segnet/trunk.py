"""SegNet's encoder and decoder (Badrinarayanan, Kendall and Cipolla, 2017), and all maps on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, max_unpool2d

from equipoise.nets.segnet.blocks import check_image, convolution, filters_of

__all__ = ["SegNetFeatures", "SegNetTrunk", "TrunkMaps"]


class TrunkMaps(NamedTuple):
    """Maps of the five levels; those of the encoder from the finest to the coarsest, those of the decoder back again.

    Attributes:
        entered: after the first convolution of each level of the encoder.
        left: after its last, before pooling.
        unpooled: what each level of the decoder starts from.
        decoded: after its last convolution; the last of these is the trunk's result.
    """

    entered: list[Tensor]
    left: list[Tensor]
    unpooled: list[Tensor]
    decoded: list[Tensor]


class _Level(nn.Module):
    """A convolution that changes the number of channels, and some that keep it."""

    def __init__(self, inputs: int, outputs: int, further: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs)
        self.rest = nn.Sequential(*(convolution(outputs, outputs) for _ in range(further)))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        entered = self.first(maps)
        return entered, self.rest(entered)


class SegNetTrunk(nn.Module):
    """Encoder and decoder of five levels each, with as many convolutions as the VGG network with 16 layers has.

    2×2 max pooling closes each level of the encoder; the decoder puts the maxima back to the places where they came from.

    Args:
        width: w for channels (w, 2w, 4w, 8w, 8w), or the five numbers.
    """

    def __init__(self, width: int | Sequence[int] = 64) -> None:
        super().__init__()
        filters = filters_of(width)
        self.encoder = nn.ModuleList(map(_Level, (3, *filters[:-1]), filters, (1, 1, 2, 2, 2)))
        self.decoder = nn.ModuleList(map(_Level, filters[::-1], (*filters[-2::-1], filters[0]), (2, 2, 2, 1, 1)))

    def forward(self, image: Tensor) -> TrunkMaps:
        """Computes all maps.

        Args:
            image: ``[N, 3, H, W]``, H and W multiples of 32.

        Raises:
            InputError: an image of another shape.
        """
        check_image(image)
        maps = TrunkMaps([], [], [], [])
        places: list[Tensor] = []
        current = image
        for level in self.encoder:
            entered, left = level(current)
            maps.entered.append(entered)
            maps.left.append(left)
            current, where = max_pool2d(left, 2, return_indices=True)
            places.append(where)
        for level in self.decoder:
            maps.unpooled.append(max_unpool2d(current, places.pop(), (2, 2)))
            _, current = level(maps.unpooled[-1])
            maps.decoded.append(current)
        # Views end here, so that none of them lies on another's way: gradients by one map leave out those by the maps below.
        return TrunkMaps(*([each.view_as(each) for each in level] for level in maps))


class SegNetFeatures(SegNetTrunk):
    """The trunk where only its result is wanted: ``[N, 3, H, W]`` → ``[N, w, H, W]``."""

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """Computes the decoder's last map."""
        return super().forward(image).decoded[-1]
