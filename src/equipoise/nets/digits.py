"""The network of the ``digits`` benchmark: a small shared encoder and one head per task."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DigitsNet"]


class DigitsNet(nn.Module):
    """Two 3×3 convolutions (10 and 20 channels), a shared layer of 50 units, and a two-layer head for each task.

    The first convolution is followed by 2×2 max pooling, neither is padded: a canvas of 12×12 becomes 10 maps of 5×5
    and then 20 maps of 3×3.

    Attributes:
        encoder: everything the four tasks share, ``[N, 1, 12, 12]`` → ``[N, 50]``.
        heads: task → head; ``left`` and ``right`` give ten logits, ``sum`` and ``ink`` one number.

    Example:
        >>> import torch
        >>> {task: tuple(out.shape) for task, out in DigitsNet()(torch.zeros(7, 1, 12, 12)).items()}
        {'left': (7, 10), 'right': (7, 10), 'sum': (7,), 'ink': (7,)}
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 10, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(10, 20, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20 * 3 * 3, 50),
            nn.ReLU(),
        )
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, outputs))
                for task, outputs in {"left": 10, "right": 10, "sum": 1, "ink": 1}.items()
            }
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            image: canvases ``[N, 1, 12, 12]``.

        Returns:
            ``left`` and ``right`` ``[N, 10]`` logits, ``sum`` and ``ink`` ``[N]``.
        """
        features = self.encoder(image)
        return {task: head(features).squeeze(-1) for task, head in self.heads.items()}
