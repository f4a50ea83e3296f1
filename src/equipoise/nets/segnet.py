"""SegNet: encoder and decoder that hands on the places of the maxima; with split heads, and with attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, max_unpool2d

from equipoise.errors import InputError
from equipoise.nets.outputs import NYUV2, Output, as_outputs, module_per_task

__all__ = [
    "SegNet",
    "SegNetFeatures",
    "SegNetMTAN",
    "SegNetTrunk",
    "TrunkMaps",
    "attention_mask",
    "check_image",
    "convolution",
    "filters_of",
    "initialize",
    "prediction_head",
]

LEVELS = 5
_GROWTH = (1, 2, 4, 8, 8)


def filters_of(width: int | Sequence[int]) -> tuple[int, ...]:
    """Channels at the five levels: (w, 2w, 4w, 8w, 8w), or all five as given.

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


def initialize(network: nn.Module) -> None:
    """Xavier-normal weights and zero biases for every convolution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


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


class SegNet(nn.Module):
    """SegNet whose encoder and decoder all tasks share, with two convolutions for each task on top ("split").

    Hard parameter sharing as in the baselines of Liu, Johns and Davison (2019, "End-to-End Multi-Task Learning with
    Attention"). With the published width it has 25,017,672 parameters for the two tasks of Cityscapes and 25,055,185 for
    the three of NYUv2. One task alone is the single-task network.

    Args:
        tasks: task → what it predicts: an :class:`~equipoise.nets.Output`, or a number of channels.
        width: w for channels (w, 2w, 4w, 8w, 8w), or the five numbers; the published networks have 64.

    Attributes:
        features: what the tasks share, ``[N, 3, H, W]`` → ``[N, w, H, W]``.
        heads: task → head, ``[N, w, H, W]`` → ``[N, channels, H, W]``.

    Raises:
        InputError: tasks or width that cannot be used.

    Example:
        >>> import torch
        >>> from equipoise.nets import CITYSCAPES
        >>> network = SegNet(CITYSCAPES, width=2)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(2, 3, 32, 64)).items()}
        {'semantic': (2, 7, 32, 64), 'depth': (2, 1, 32, 64)}
    """

    def __init__(self, tasks: Mapping[str, Output | int] = NYUV2, width: int | Sequence[int] = 64) -> None:
        super().__init__()
        self.outputs = as_outputs(tasks)
        filters = filters_of(width)
        self.features = SegNetFeatures(filters)
        self.heads = module_per_task(
            "heads", {task: prediction_head(filters[0], output.channels) for task, output in self.outputs.items()}
        )
        initialize(self)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            image: ``[N, 3, H, W]``, H and W multiples of 32.

        Returns:
            Task → ``[N, channels, H, W]``, finished as its output says.

        Raises:
            InputError: an image of another shape.
        """
        features = self.features(image)
        return {task: self.outputs[task].finish(head(features)) for task, head in self.heads.items()}


class _Attention(nn.Module):
    """A task's masks, one at each of the five levels of the encoder and of the decoder."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        # Finest level first; the level above hands on as many channels as the level has.
        self.encoder = nn.ModuleList(
            attention_mask(each if level == 0 else 2 * each, each) for level, each in enumerate(filters)
        )
        # Coarsest level first, as the decoder runs.
        self.decoder = nn.ModuleList(
            attention_mask(below + each, each) for below, each in zip(filters[::-1], _decoded(filters), strict=True)
        )


class SegNetMTAN(nn.Module):
    """SegNet with soft attention: each task picks its own features from the shared trunk, at every level.

    At level j of the encoder, with p and u the trunk's maps after the first and after the last convolution, task k masks
    u with a_k(j) = mask_k([u_k(j−1); p(j)]) and hands u_k(j) = pool(f_j(a_k(j) ⊙ u)) on; in the decoder likewise, with
    bilinear upsampling before f_j and p the unpooled map. The masks belong to a task; the convolutions f_j are shared by
    all.

    With the published width it has 41,206,984 parameters for the two tasks of Cityscapes and 44,229,073 for the three of
    NYUv2. The released code counts the masks among the shared parameters, although only one task's gradient reaches each:
    its balancers' weights scale them. The library finds them task-specific. For the released code's division pass
    ``shared=[p for name, p in network.named_parameters() if not name.startswith("heads.")]``.

    Args:
        tasks: task → what it predicts: an :class:`~equipoise.nets.Output`, or a number of channels.
        width: w for channels (w, 2w, 4w, 8w, 8w), or the five numbers; the published networks have 64.

    Attributes:
        features: the trunk, whose maps all tasks start from; for ``features=``.
        encoder_transfer, decoder_transfer: the convolutions f_j, shared, above the features.
        attention: task → its masks.
        heads: task → head; each is given maps of its own task, ``[N, w, H, W]``, so that nothing can act between the
            features and the heads of all tasks (``Problem.parts``).

    Raises:
        InputError: tasks or width that cannot be used.

    Example:
        >>> network = SegNetMTAN(NYUV2, width=2)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(2, 3, 32, 64)).items()}
        {'semantic': (2, 13, 32, 64), 'depth': (2, 1, 32, 64), 'normal': (2, 3, 32, 64)}
    """

    def __init__(self, tasks: Mapping[str, Output | int] = NYUV2, width: int | Sequence[int] = 64) -> None:
        super().__init__()
        self.outputs = as_outputs(tasks)
        filters = filters_of(width)
        self.features = SegNetTrunk(filters)
        self.encoder_transfer = nn.ModuleList(map(convolution, filters, (*filters[1:], filters[-1])))
        self.decoder_transfer = nn.ModuleList(map(convolution, filters[::-1], _decoded(filters)))
        self.attention = module_per_task("attention", {task: _Attention(filters) for task in self.outputs})
        self.heads = module_per_task(
            "heads", {task: prediction_head(filters[0], output.channels) for task, output in self.outputs.items()}
        )
        initialize(self)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            image: ``[N, 3, H, W]``, H and W multiples of 32.

        Returns:
            Task → ``[N, channels, H, W]``, finished as its output says.

        Raises:
            InputError: an image of another shape.
        """
        maps = self.features(image)
        return {
            task: self.outputs[task].finish(head(self._attended(maps, self.attention[task])))
            for task, head in self.heads.items()
        }

    def _attended(self, maps: TrunkMaps, masks: nn.Module) -> Tensor:
        """A task's own maps ``[N, w, H, W]``."""
        assert isinstance(masks, _Attention)
        own: Tensor | None = None
        for entered, left, mask, transfer in zip(maps.entered, maps.left, masks.encoder, self.encoder_transfer, strict=True):
            seen = entered if own is None else torch.cat([entered, own], 1)
            own = max_pool2d(transfer(mask(seen) * left), 2)
        assert own is not None
        for unpooled, decoded, mask, transfer in zip(
            maps.unpooled, maps.decoded, masks.decoder, self.decoder_transfer, strict=True
        ):
            larger = interpolate(own, scale_factor=2, mode="bilinear", align_corners=True)
            own = mask(torch.cat([unpooled, transfer(larger)], 1)) * decoded
        return own


def _decoded(filters: Sequence[int]) -> tuple[int, ...]:
    """Channels that the levels of the decoder end with, the coarsest first."""
    return (*filters[-2::-1], filters[0])
