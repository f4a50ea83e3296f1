"""The networks that whole training steps are timed with: an encoder, one small head per task, one squared error per task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["PROBLEMS", "Network", "Problem", "cnn", "losses_of", "mlp"]

Batch = tuple[Tensor, Tensor]


class Network(nn.Module):
    """An encoder with K heads."""

    def __init__(self, encoder: nn.Module, width: int, tasks: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(
            {f"task{k}": nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 1)) for k in range(tasks)}
        )

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.encoder(inputs)
        return {name: head(features) for name, head in self.heads.items()}


def losses_of(outputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
    """Mean squared errors, task k's target being column k."""
    return {name: nn.functional.mse_loss(output.squeeze(1), targets[:, k]) for k, (name, output) in enumerate(outputs.items())}


@dataclass(frozen=True)
class Problem:
    """A network to train, and batches for it.

    Attributes:
        name: in the tables.
        batch_size: samples per batch.
        shape: of one input.
        width: of the features.
        make_encoder: makes the shared part.
    """

    name: str
    batch_size: int
    shape: tuple[int, ...]
    width: int
    make_encoder: Callable[[], nn.Module]

    def network(self, tasks: int) -> Network:
        """The same network whenever it is called with the same number of tasks."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Network(self.make_encoder(), self.width, tasks)

    def batch(self, tasks: int, number: int = 0) -> Batch:
        """Inputs and targets with noise of very different size per task; other inputs for another number."""
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(self.batch_size, *self.shape, generator=generator)
        mixture = torch.randn(inputs[0].numel(), tasks, generator=generator) / inputs[0].numel() ** 0.5
        targets = inputs.flatten(1) @ mixture + 0.3 * torch.randn(self.batch_size, tasks, generator=generator)
        if number:
            order = torch.Generator().manual_seed(number)
            inputs = inputs + 0.3 * torch.randn(inputs.shape, generator=order)
        return inputs, targets * torch.logspace(-0.5, 0.5, tasks)

    def shared(self) -> int:
        """How many shared parameters there are."""
        return sum(parameter.numel() for parameter in self.make_encoder().parameters())


def mlp() -> nn.Module:
    """Four layers, 128 → 512 → 512 → 512 → 128."""
    return nn.Sequential(
        nn.Linear(128, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 128),
        nn.ReLU(),
    )


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def cnn() -> nn.Module:
    """Three blocks of convolution, batch norm and pooling, and a linear layer."""
    return nn.Sequential(*_block(3, 16), *_block(16, 32), *_block(32, 64), nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU())


PROBLEMS = (
    Problem("MLP, batch 128", 128, (128,), 128, mlp),
    Problem("MLP, batch 512", 512, (128,), 128, mlp),
    Problem("CNN, batch 64", 64, (3, 32, 32), 128, cnn),
)
