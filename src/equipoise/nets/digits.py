"""The network of the ``digits`` benchmark: a small shared encoder and one head per task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from equipoise.errors import InputError

__all__ = ["DigitsNet"]

_OUTPUTS = {"left": 10, "right": 10, "sum": 1, "ink": 1}


class DigitsNet(nn.Module):
    """Two 3×3 convolutions (10 and 20 channels), a shared layer of 50 units, and a two-layer head for each task.

    The first convolution is followed by 2×2 max pooling, neither is padded: a canvas of 12×12 becomes 10 maps of 5×5
    and then 20 maps of 3×3.

    Args:
        canvas: width and height of the images, an even number from 8 on.
        tasks: those that there are heads for, of the four.

    Attributes:
        encoder: everything the tasks share, ``[N, 1, canvas, canvas]`` → ``[N, 50]``.
        heads: task → head; ``left`` and ``right`` give ten logits, ``sum`` and ``ink`` one number.

    Raises:
        InputError: another canvas, or a task that is none of the four.

    Example:
        >>> import torch
        >>> {task: tuple(out.shape) for task, out in DigitsNet()(torch.zeros(7, 1, 12, 12)).items()}
        {'left': (7, 10), 'right': (7, 10), 'sum': (7,), 'ink': (7,)}
    """

    def __init__(self, canvas: int = 12, tasks: Sequence[str] = tuple(_OUTPUTS)) -> None:
        super().__init__()
        if canvas < 8 or canvas % 2:
            raise InputError(f"canvas is {canvas}; it must be an even number from 8 on")
        if not set(tasks) <= set(_OUTPUTS):
            raise InputError(f"tasks are among {', '.join(_OUTPUTS)}; got {', '.join(tasks)}")
        side = canvas // 2 - 3
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 10, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(10, 20, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20 * side * side, 50),
            nn.ReLU(),
        )
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, outputs))
                for task, outputs in _OUTPUTS.items()
                if task in tasks
            }
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            image: canvases ``[N, 1, canvas, canvas]``.

        Returns:
            ``left`` and ``right`` ``[N, 10]`` logits, ``sum`` and ``ink`` ``[N]``.
        """
        features = self.encoder(image)
        return {task: head(features).squeeze(-1) for task, head in self.heads.items()}
