"""Small problems that many tests share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import OnFeatures

Batch = tuple[Tensor, Tensor]

_APART = (OnFeatures, DoubleSampling, eq.balance.NTK, eq.balance.SAMO)
METHODS = [info.name for info in eq.methods() if not issubclass(info.cls, _APART)]
"""The methods that can be made from their name alone, for any loss function and any loop. Those that act on parts of a model
(RotoGrad, BayesAggMTL) are told by :func:`optimizer_of`, and refuse losses as callables, micro-batches and the drop-in; NTK
evaluates all losses at once, in steps of MultiTaskOptimizer alone, and SAMO takes gradients elsewhere; to those that look at
further batches (MoDo, SDMGrad) it gives some."""

SAMPLING = [info.name for info in eq.methods() if issubclass(info.cls, DoubleSampling)]
"""Those that look at further batches, given by :func:`further_batches`; made from their name alone, too."""


class Heads(nn.Module):
    """A shared encoder and one linear head per task."""

    def __init__(self, tasks: int = 3, *, inputs: int = 6, width: int = 8, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(inputs, width), nn.Tanh()]
        if norm:
            layers.append(nn.BatchNorm1d(width))
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(width, width))
        self.encoder = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.encoder(inputs)
        return [head(features).squeeze(-1) for head in self.heads]


SCALES = (1.0, 10.0, 0.1, 3.0, 0.5)


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Mean squared errors on very different scales."""
    inputs, targets = batch
    return {f"t{k}": SCALES[k % 5] * (out - targets[:, k]).square().mean() for k, out in enumerate(model(inputs))}


def batch(size: int = 16, tasks: int = 3, *, inputs: int = 6, seed: int = 0) -> Batch:
    """Random inputs, and targets that pull the tasks apart."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, inputs, generator=generator), torch.randn(size, tasks, generator=generator)


def targets(batch: Batch) -> dict[str, Tensor]:
    """What the heads are to say."""
    return {f"t{k}": column for k, column in enumerate(batch[1].T)}


def balancer_of(name: str, tasks: int = 3) -> eq.Balancer:
    """The balancer of that name, such that rounding decides nothing.

    LDC-MTL's slopes are signs of gaps between losses over their first ones, all of which are 1 in the first step: which sign
    comes out of that is up to the processor's last bits. Here losses are measured by others than their first ones. MAdam's
    first direction is one of signs as well, but for ε.
    """
    if name == "madam":
        return eq.MAdam(epsilon=0.1)
    if name == "ldc-mtl":
        return eq.LDCMTL(initial=[1.0, 8.0, 0.1, 2.0, 0.6][:tasks])
    return eq.balancer(name)


def optimizer_of(
    balancer: object,
    model: nn.Module | None = None,
    *,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    lr: float = 0.05,
    **options: object,
) -> eq.MultiTaskOptimizer:
    """A MultiTaskOptimizer on :class:`Heads`."""
    if model is None:
        torch.manual_seed(0)
        model = Heads()
    balancer = balancer_of(balancer) if isinstance(balancer, str) else eq.balance.as_balancer(balancer)
    if isinstance(balancer, OnFeatures) and balancer.lacks_parts and isinstance(model, Heads):
        parts = (model.encoder, {f"t{k}": head for k, head in enumerate(model.heads)})
        balancer.take_parts(*parts, *((targets,) if balancer.needs_targets else ()))
    objective = eq.Objective(model, losses, batches=further_batches(model) if isinstance(balancer, DoubleSampling) else None)
    return eq.MultiTaskOptimizer(objective, make(model.parameters(), lr=lr), balancer, **options)  # type: ignore[arg-type]


def further_batches(model: nn.Module) -> list[Batch]:
    """What an objective of this model can draw further batches from."""
    tasks = len(model.heads) if isinstance(model, Heads) else 3
    return [batch(tasks=tasks, seed=1000 + place) for place in range(5)]


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor], **tolerance: float) -> bool:
    """Whether two sets of parameters are equal: to the bit, or within a tolerance."""
    assert a.keys() == b.keys()
    if not tolerance:
        return all(torch.equal(a[name], b[name]) for name in a)
    return all(torch.allclose(a[name], b[name], **tolerance) for name in a)
