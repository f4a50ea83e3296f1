"""SegNet with the multi-task attention network on top (Liu, Johns and Davison, 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from equipoise.nets.heads import module_a_task
from equipoise.nets.outputs import NYUV2, Output, as_outputs
from equipoise.nets.segnet.blocks import attention_mask, convolution, filters_of, initialise, prediction_head
from equipoise.nets.segnet.trunk import SegNetTrunk, TrunkMaps

__all__ = ["SegNetMTAN"]


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
        self.attention = module_a_task("attention", {task: _Attention(filters) for task in self.outputs})
        self.heads = module_a_task(
            "heads", {task: prediction_head(filters[0], output.channels) for task, output in self.outputs.items()}
        )
        initialise(self)

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
