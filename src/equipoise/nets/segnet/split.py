"""SegNet with a head a task on its decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from equipoise.nets.heads import module_a_task
from equipoise.nets.outputs import NYUV2, Output, as_outputs
from equipoise.nets.segnet.blocks import filters_of, initialise, prediction_head
from equipoise.nets.segnet.trunk import SegNetFeatures

__all__ = ["SegNet"]


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
        features = self.features(image)
        return {task: self.outputs[task].finish(head(features)) for task, head in self.heads.items()}
