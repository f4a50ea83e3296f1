"""A cell whose edges mix all operations, one whose edges are what was found, and their numbers of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.errors import InputError, near_misses

__all__ = [
    "OPERATIONS",
    "FoundNetwork",
    "SearchNetwork",
    "chosen",
    "edges",
    "expected_parameters",
    "number_of_parameters",
    "operation",
    "parameter_counts",
    "size_loss",
]


def _convolution(channels: int, *layers: nn.Module) -> nn.Module:
    # No learned scale and no batch statistics: the parameters are the kernels', and a sample's output is its own.
    return nn.Sequential(nn.ReLU(), *layers, nn.GroupNorm(1, channels, affine=False))


def _kernel(channels: int, size: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(channels, channels, size, padding=size // 2, groups=groups, bias=False)


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "skip": lambda channels: nn.Identity(),
    "pool": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "conv1": lambda channels: _convolution(channels, _kernel(channels, 1)),
    "separable3": lambda channels: _convolution(channels, _kernel(channels, 3, channels), _kernel(channels, 1)),
    "conv3": lambda channels: _convolution(channels, _kernel(channels, 3)),
}
"""Name → what makes it for a number of channels C; parameters: 0, 0, C², 9C + C², 9C². All keep the image's size."""


def operation(name: str, channels: int) -> nn.Module:
    """One of :data:`OPERATIONS`.

    Raises:
        InputError: an unknown name.
    """
    if name not in OPERATIONS:
        raise InputError(f'unknown operation "{name}"; expected one of {", ".join(OPERATIONS)}.{near_misses(name, OPERATIONS)}')
    return OPERATIONS[name](channels)


def parameter_counts(channels: int) -> Tensor:
    """n_o: parameters of every operation ``[operations]``, in the order of :data:`OPERATIONS`.

    Example:
        >>> parameter_counts(8).tolist()
        [0.0, 0.0, 64.0, 136.0, 576.0]
    """
    with torch.device("meta"):
        made = [make(channels) for make in OPERATIONS.values()]
    return torch.tensor([float(sum(parameter.numel() for parameter in one.parameters())) for one in made])


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


def expected_parameters(logits: Tensor, counts: Tensor) -> Tensor:
    """N̂(α) = Σ over edges Σ over operations softmax(α)_o n_o (thesis, eq. 3.36), a scalar.

    Args:
        logits: α ``[edges, operations]``.
        counts: n_o ``[operations]``.

    Raises:
        InputError: shapes that do not fit.

    Example:
        >>> float(expected_parameters(torch.zeros(3, 2), torch.tensor([0.0, 10.0])))
        15.0
    """
    _check(logits, counts)
    return (torch.softmax(logits, 1) * counts).sum()


def number_of_parameters(logits: Tensor, counts: Tensor) -> int:
    """N(α): parameters when every edge becomes its most probable operation (thesis, section 3.8.2).

    Args:
        logits: α ``[edges, operations]``.
        counts: n_o ``[operations]``.

    Raises:
        InputError: shapes that do not fit.

    Example:
        >>> number_of_parameters(torch.tensor([[0.1, 0.2], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 10.0]))
        20
    """
    _check(logits, counts)
    return int(counts[logits.argmax(1)].sum())


def size_loss(logits: Tensor, counts: Tensor, wished: float) -> Tensor:
    """|N̂(α) − L| / (edges · max n_o): eq. 3.37 of the thesis in units of the largest possible network.

    Eq. 3.37 counts parameters. Where gradients are orthogonal, MGDA's weights are as one over their squared lengths, so next to
    losses near 1 a count in the hundreds would hardly weigh; the unit makes it of their size and changes nothing else.

    Args:
        logits: α ``[edges, operations]``.
        counts: n_o ``[operations]``.
        wished: L, in parameters.

    Raises:
        InputError: an L that no cell can have, shapes that do not fit, or operations that all have no parameters.

    Example:
        >>> float(size_loss(torch.zeros(3, 2), torch.tensor([0.0, 10.0]), wished=6.0))
        0.30...
    """
    _check(logits, counts)
    largest = len(logits) * float(counts.max())
    if largest == 0:
        raise InputError("no operation has parameters, so all architectures have the same size")
    if not 0 <= wished <= largest:
        raise InputError(f"wished is a number of parameters from 0 to {largest:g}, those of the largest cell; got {wished:g}")
    return (expected_parameters(logits, counts) - wished).abs() / largest


def _check(logits: Tensor, counts: Tensor) -> None:
    if logits.dim() != 2 or counts.shape != logits.shape[1:]:
        raise InputError(
            f"logits must be [edges, operations] and counts [operations]; got {list(logits.shape)} and {list(counts.shape)}"
        )
