"""The networks that the price of balancing is measured with: an encoder of the kind that people train, and K small heads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.networks import Problem, cnn, mlp
from equipoise.nets import ResNet

__all__ = ["NETWORKS", "POST_NORM", "PricedNetwork", "PricedProblem"]

Batch = tuple[tuple[Tensor, ...], Tensor]


class PricedNetwork(nn.Module):
    """An encoder with K heads of two layers.

    Args:
        encoder: inputs → features, the last dimension of which is ``width``.
        width: of the features.
        tasks: how many heads.
    """

    def __init__(self, encoder: nn.Module, width: int, tasks: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(
            {f"task{k}": nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 1)) for k in range(tasks)}
        )

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes every task's output."""
        features = self.encoder(*inputs)
        return {name: head(features).squeeze(-1) for name, head in self.heads.items()}


class _Transformer(nn.Module):
    """Six blocks over 16 tokens, normalized before each sum or after it; gives the first token's state, or all."""

    def __init__(self, every_token: bool, width: int = 128, *, before: bool = True) -> None:
        super().__init__()
        self.every_token = every_token
        self.embedding = nn.Linear(32, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=before)
        last = nn.LayerNorm(width) if before else None
        self.blocks = nn.TransformerEncoder(block, 6, norm=last, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.blocks(self.embedding(tokens))
        return states if self.every_token else states[:, 0]


class _MessagePassing(nn.Module):
    """Four rounds of messages over random graphs of 16 atoms, and their mean."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Linear(16, width)
        self.messages = nn.ModuleList(nn.Sequential(nn.Linear(2 * width, width), nn.ReLU()) for _ in range(4))
        self.updates = nn.ModuleList(nn.Sequential(nn.Linear(2 * width, width), nn.ReLU()) for _ in range(4))
        self.last = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, atoms: Tensor, edges: Tensor) -> Tensor:
        graphs, places, _ = atoms.shape
        states = self.embedding(atoms).flatten(0, 1)
        start, end = edges
        for message, update in zip(self.messages, self.updates, strict=True):
            sent = message(torch.cat([states[start], states[end]], 1))
            received = torch.zeros_like(states).index_add(0, end, sent)
            states = states + update(torch.cat([states, received], 1))
        features: Tensor = self.last(states.view(graphs, places, -1).mean(1))
        return features


@dataclass(frozen=True)
class PricedProblem(Problem):
    """A network to train, and batches for it.

    Attributes:
        outputs: shape of one sample's output.
        graphs: whether inputs are graphs.
    """

    outputs: tuple[int, ...] = ()
    graphs: bool = False

    def network(self, tasks: int) -> PricedNetwork:
        """The same network whenever it is called with the same number of tasks."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PricedNetwork(self.make_encoder(), self.width, tasks)

    def batch(self, tasks: int, number: int = 0) -> Batch:
        """Inputs and noisy targets of a random teacher, whose scales span three decades over the tasks."""
        teacher = torch.Generator().manual_seed(1)
        size = 1
        for length in self.shape:
            size *= length
        first = torch.randn(size, 64, generator=teacher) / size**0.5
        second = torch.randn(64, tasks * max(1, *self.outputs, 1), generator=teacher) / 8
        drawn = torch.Generator().manual_seed(100 + number)
        inputs = torch.randn(self.batch_size, *self.shape, generator=drawn)
        targets = (torch.tanh(2 * inputs.flatten(1) @ first) @ second).view(self.batch_size, *self.outputs, tasks)
        targets = targets + 0.3 * torch.randn(targets.shape, generator=drawn)
        targets = targets * torch.logspace(-0.75, 0.75, tasks)
        if not self.graphs:
            return (inputs,), targets
        places = self.shape[0]
        ends = torch.randint(places, (2, self.batch_size, 4 * places), generator=drawn)
        edges = (ends + places * torch.arange(self.batch_size)[:, None]).flatten(1)
        return (inputs, edges), targets

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Mean squared errors, task k's target being the last index k."""
        inputs, targets = batch
        outputs = model(*inputs)
        return {name: nn.functional.mse_loss(output, targets[..., k]) for k, (name, output) in enumerate(outputs.items())}


NETWORKS = (
    PricedProblem("MLP", 256, (128,), 128, mlp),
    PricedProblem("CNN", 64, (3, 32, 32), 128, cnn),
    PricedProblem("ResNet-18, width 16", 64, (3, 64, 64), 128, lambda: ResNet(18, classifier=False, pool=True, width=16)),
    PricedProblem("transformer, class token", 32, (16, 32), 128, lambda: _Transformer(False)),
    PricedProblem("transformer, token heads", 32, (16, 32), 128, lambda: _Transformer(True), (16,)),
    PricedProblem("message passing", 32, (16, 16), 128, _MessagePassing, graphs=True),
)
"""An MLP, a CNN, a residual network, a transformer with heads on one token and on all, a message-passing network."""

POST_NORM = tuple(
    PricedProblem(f"post-norm, {name}", 32, (16, 32), 128, partial(_Transformer, every_token, before=False), outputs)
    for name, every_token, outputs in (("class token", False, ()), ("token heads", True, (16,)))
)
"""The transformer with blocks that normalize after each sum, so that no residual stream runs through them."""
