"""The augmentation that the published results on NYUv2 and Cityscapes were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["ZoomAndFlip"]


@dataclass(frozen=True)
class ZoomAndFlip:
    """Cuts out a random part and enlarges it to the whole, then mirrors it left to right half of the time.

    The part has ⌊H/s⌋ × ⌊W/s⌋ pixels, with the scale s drawn from ``scales`` and its place drawn evenly. Image and normals
    are enlarged bilinearly with their corners kept in place; label and depth take the nearest value, so that no class and
    no depth arises that was not there. What is enlarged by s looks s times as near: depth is divided by s. Mirroring
    turns the sign of the normals' x component. With s = 1 and no mirroring everything stays as it is, bit by bit.

    This is what MTAN's released code does (Liu et al. 2019; the released code of CAGrad, FAMO, LDC-MTL and COST, too), except
    that random numbers come from a generator. Two of its traits are kept, since published numbers have them: interpolated
    normals are not brought back to length 1; and the depth of Cityscapes, which is an *inverse* depth, is divided as well,
    although what is nearer has the larger inverse depth. ``zoomed_depth="multiplied"`` does what geometry asks.

    Args:
        scales: the scales, all at least 1.
        flip: probability of mirroring.
        zoomed_depth: ``"divided"`` by the scale, or ``"multiplied"``.

    Raises:
        InputError: no scales, a scale below 1, a probability outside [0, 1], or another ``zoomed_depth``.

    Example:
        >>> arrays = {"image": torch.rand(3, 8, 8), "label": torch.zeros(8, 8, dtype=torch.int64)}
        >>> seen = ZoomAndFlip(scales=(2.0,))(arrays, torch.Generator().manual_seed(0))
        >>> {name: tuple(array.shape) for name, array in seen.items()}
        {'image': (3, 8, 8), 'label': (8, 8)}
    """

    scales: tuple[float, ...] = (1.0, 1.2, 1.5)
    flip: float = 0.5
    zoomed_depth: Literal["divided", "multiplied"] = "divided"

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1:
            raise InputError(f"scales is {self.scales}; expected at least one, and none below 1")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip is {self.flip}; expected a probability, from 0 to 1")
        if self.zoomed_depth not in ("divided", "multiplied"):
            raise InputError(f'zoomed_depth is "{self.zoomed_depth}"; expected "divided" or "multiplied"')

    def __call__(self, arrays: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The arrays of one scene, changed alike.

        Args:
            arrays: ``image`` [3, H, W], and whichever of ``label`` [H, W], ``depth`` [1, H, W] and ``normal`` [3, H, W] there
                are.
            generator: of the draws, always four numbers.
        """
        height, width = arrays["image"].shape[-2:]
        scale = self.scales[_draw(len(self.scales), generator)]
        high, wide = max(1, int(height / scale)), max(1, int(width / scale))
        top, left = _draw(height - high + 1, generator), _draw(width - wide + 1, generator)
        mirrored = float(torch.rand((), generator=generator)) < self.flip
        seen = dict(arrays)
        if (high, wide) != (height, width):
            seen = {
                name: _enlarged(array[..., top : top + high, left : left + wide], name, (height, width))
                for name, array in seen.items()
            }
        if "depth" in seen and scale != 1:
            seen["depth"] = seen["depth"] / scale if self.zoomed_depth == "divided" else seen["depth"] * scale
        if mirrored:
            seen = {name: array.flip(-1) for name, array in seen.items()}
            if "normal" in seen:
                seen["normal"][0].neg_()
        return seen


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _enlarged(array: Tensor, name: str, size: tuple[int, int]) -> Tensor:
    if name in ("image", "normal"):
        return F.interpolate(array[None], size=size, mode="bilinear", align_corners=True)[0]
    values = array.to(torch.float32).reshape(1, -1, *array.shape[-2:])
    return F.interpolate(values, size=size, mode="nearest").reshape(*array.shape[:-2], *size).to(array.dtype)
