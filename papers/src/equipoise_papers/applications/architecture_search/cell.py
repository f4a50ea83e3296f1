"""A cell whose edges mix all operations, and one whose edges are what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise_papers.applications.architecture_search.operations import OPERATIONS, operation

__all__ = ["FoundNetwork", "SearchNetwork", "chosen", "edges"]


def edges(nodes: int) -> list[tuple[int, int]]:
    """E: every node is fed by all before it; node 0 is the cell's input.

    Example:
        >>> edges(3)
        [(0, 1), (0, 2), (1, 2)]
    """
    return [(source, target) for target in range(1, nodes) for source in range(target)]


def chosen(logits: Tensor) -> tuple[str, ...]:
    """The most probable operation of every edge, from α ``[edges, operations]``."""
    names = tuple(OPERATIONS)
    return tuple(names[position] for position in logits.argmax(1).tolist())


class _Frame(nn.Module):
    """What surrounds the cell: a stride-2 stem (8×8 → 4×4), and a linear classifier on the pooled, normalised nodes."""

    def __init__(self, channels: int, nodes: int, classes: int) -> None:
        super().__init__()
        self.nodes = nodes
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, channels))
        self.classifier = nn.Linear(channels * (nodes - 1), classes)

    def _play(self, images: Tensor, along: Callable[[int, Tensor], Tensor]) -> Tensor:
        values = [self.stem(images)]
        edge = 0
        for target in range(1, self.nodes):
            arriving = []
            for source in range(target):
                arriving.append(along(edge, values[source]))
                edge += 1
            values.append(torch.stack(arriving).sum(0))
        pooled = torch.cat([torch.relu(value).mean((2, 3)) for value in values[1:]], 1)
        # Means over the image differ little between images; normalised, plain gradient descent learns from them.
        logits: Tensor = self.classifier(F.layer_norm(pooled, pooled.shape[1:]))
        return logits


class SearchNetwork(_Frame):
    """Every edge is the mean of all operations, weighted by the softmax of its logits; the weights of all are ω.

    Args:
        channels: of every node.
        nodes: of the cell.
        classes: of the classifier.

    Example:
        >>> network = SearchNetwork(channels=4, nodes=3)
        >>> network(torch.zeros(2, 1, 8, 8), torch.zeros(3, len(OPERATIONS))).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int, nodes: int, classes: int = 10) -> None:
        super().__init__(channels, nodes, classes)
        self.choices = nn.ModuleList(nn.ModuleList(operation(name, channels) for name in OPERATIONS) for _ in edges(nodes))

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` and α ``[edges, operations]`` → ``[N, classes]``."""
        if logits.shape != (len(self.choices), len(OPERATIONS)):
            raise InputError(
                f"logits must be [edges, operations] = {[len(self.choices), len(OPERATIONS)]}; got {list(logits.shape)}"
            )
        shares = torch.softmax(logits, 1)

        def along(edge: int, value: Tensor) -> Tensor:
            results = [one(value) for one in self.choices[edge]]  # type: ignore[attr-defined]  # a ModuleList of ModuleLists
            return torch.stack([share * result for share, result in zip(shares[edge], results, strict=True)]).sum(0)

        return self._play(images, along)


class FoundNetwork(_Frame):
    """Every edge is one operation.

    Args:
        architecture: names of operations, one an edge in the order of :func:`edges`.
        channels: of every node.
        nodes: of the cell.
        classes: of the classifier.

    Raises:
        InputError: another number of operations than edges, or an unknown one.
    """

    def __init__(self, architecture: Sequence[str], channels: int, nodes: int, classes: int = 10) -> None:
        super().__init__(channels, nodes, classes)
        if len(architecture) != len(edges(nodes)):
            raise InputError(f"a cell of {nodes} nodes has {len(edges(nodes))} edges; got {len(architecture)} operations")
        self.operations = nn.ModuleList(operation(name, channels) for name in architecture)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` → ``[N, classes]``."""
        return self._play(images, lambda edge, value: self.operations[edge](value))
