"""Sparse gradients of embeddings, wherever gradients are clipped, batched, scaled, copied or compared: as with dense ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, Probes, Schedule, Search
from tests.problems import METHODS, balancer_of

Batch = tuple[Tensor, Tensor]


class Tables(nn.Module):
    """A table and a layer that both tasks share, and a table for each task."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 4, sparse=sparse)
        self.layer = nn.Linear(4, 4)
        self.own = nn.ModuleList(nn.Embedding(12, 4, sparse=sparse) for _ in range(2))

    def forward(self, ids: Tensor) -> list[Tensor]:
        features = torch.tanh(self.layer(self.table(ids)))
        return [(features * table(ids)).sum(-1) for table in self.own]


def losses(model: Tables, batch: Batch) -> dict[str, Tensor]:
    ids, targets = batch
    return {f"t{k}": (1 + 4 * k) * (out - targets[:, k]).square().mean() for k, out in enumerate(model(ids))}


def lazy(model: Tables, batch: Batch) -> dict[str, Callable[[], Tensor]]:
    return {f"t{k}": lambda k=k: losses(model, batch)[f"t{k}"] for k in range(2)}


def some(model: Tables, batch: Batch) -> dict[str, Tensor]:
    """One of the tasks, where the batch says so."""
    return {name: loss for name, loss in losses(model, batch).items() if name == "t0" or int(batch[0][0]) == 0}


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 12, (6,), generator=generator)
    ids[0] = seed
    return ids, torch.randn(6, 2, generator=generator)


def optimizer(balancer: object, *, sparse: bool, function: Any = losses, momentum: float = 0.0, **options: Any) -> Any:
    torch.manual_seed(0)
    model = Tables(sparse)
    balancer = balancer_of(balancer, 2) if isinstance(balancer, str) else balancer
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)
    return eq.MultiTaskOptimizer(eq.Objective(model, function), sgd, copy.deepcopy(balancer), **options)


def agree(act: Callable[[Any], None], balancer: object = "fairgrad", **options: Any) -> None:
    """Acts on a model with sparse gradients and on one with dense ones, and compares them."""
    sparse, dense = (optimizer(balancer, sparse=kind, **copy.deepcopy(options)) for kind in (True, False))
    falls_back = options.get("batched") is not None and sparse.balancer.needs != "losses"
    with pytest.warns(UserWarning, match="leave batched= out") if falls_back else nullcontext():
        act(sparse)
    act(dense)
    pairs = zip(sparse.objective.model.parameters(), dense.objective.model.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)
    tables = [sparse.objective.model.table, *sparse.objective.model.own]
    assert all(table.weight.grad is None or table.weight.grad.is_sparse for table in tables)


def steps(mtl: eq.MultiTaskOptimizer) -> None:
    for seed in range(3):
        mtl.step(batch(seed))


def micro(mtl: eq.MultiTaskOptimizer) -> None:
    for seed in range(2):
        mtl.step(batch(seed), batch(seed + 2))


@pytest.mark.parametrize("act", [steps, micro])
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, act: Callable[[Any], None]) -> None:
    agree(act, method)


@pytest.mark.parametrize("method", ["fairgrad", "ls", "graddrop", "consmtl"])
@pytest.mark.parametrize(
    "options",
    [
        {"clip": 0.1},
        {"batched": 0},
        {"batched": 1},
        {"function": lazy, "clip": 0.1},
        {"momentum": 0.9},
        {"scaler": torch.amp.GradScaler("cpu", init_scale=16.0), "clip": 0.1},
    ],
    ids=["clip", "batched", "chunks", "callables", "momentum", "scaler"],
)
def test_every_option(method: str, options: dict[str, Any]) -> None:
    agree(steps, method, **options)


@pytest.mark.parametrize("method", ["fairgrad", "ls", "graddrop", "consmtl"])
@pytest.mark.parametrize("batched", [None, 0])
def test_micro_batches_that_lack_a_task(method: str, batched: int | None) -> None:
    agree(micro, method, function=some, batched=batched)


def test_features() -> None:
    for module in ("layer", "table"):
        agree(steps, "fairgrad", features=module)
        agree(steps, "fairgrad", features=module, clip=0.1)


def test_a_proxy() -> None:
    agree(steps, "fairgrad", proxy="auto", clip=0.1)
    agree(micro, "fairgrad", proxy="auto", function=lazy)


@pytest.mark.parametrize("name", ["table", "layer", "both"])
def test_a_proxy_s_gramian(name: str) -> None:
    found = []
    for sparse in (True, False):
        mtl = optimizer("fairgrad", sparse=sparse)
        model = mtl.objective.model
        proxy = {"table": [model.table.weight], "layer": model.layer}.get(name, [model.table.weight, model.layer.weight])
        again = eq.MultiTaskOptimizer(mtl.objective, mtl.optimizer, "fairgrad", proxy=proxy)
        again.step(batch())
        found.append(again.last.gramian)
    assert torch.allclose(*found, rtol=1e-4)


def test_gramian_and_batched_gramian() -> None:
    with pytest.warns(UserWarning, match="leave batched= out"):
        wide = optimizer("fairgrad", sparse=True, batched=0).gramian(batch())
    assert torch.allclose(wide, optimizer("fairgrad", sparse=False).gramian(batch()), rtol=1e-4)


@pytest.mark.parametrize("history", [None, "reuse", "reset"])
def test_teleports(history: str | None) -> None:
    schedule = Schedule(budget=None, cooldown=1)
    search = Search(steps=3, lr=0.01)
    teleport = COST(
        trigger=lambda gramian: True, probes=Probes("current"), schedule=schedule, search=search, history=history, guard=None
    )
    agree(steps, "fairgrad", teleport=teleport, momentum=0.9)


def test_the_drop_in_adds_to_what_is_there() -> None:
    """As sum(losses).backward() does, whatever lies there already: nothing, a sparse gradient or a dense one."""
    for method in ("fairgrad", "ls", "consmtl"):
        found = {}
        for sparse in (True, False):
            model = optimizer("ls", sparse=sparse).objective.model
            balancer = eq.balancer(method)
            for seed in range(3):
                eq.backward(losses(model, batch(seed)), balancer)
            found[sparse] = [parameter.grad.to_dense() for parameter in model.parameters()]
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found[True], found[False], strict=True))
        for before in ("sparse", "dense"):
            model, other = (optimizer("ls", sparse=sparse).objective.model for sparse in (before == "sparse", True))
            other.load_state_dict(model.state_dict())
            sum(losses(model, batch(0)).values()).backward()
            for mine, its in zip(other.parameters(), model.parameters(), strict=True):
                mine.grad = its.grad.clone()
            eq.backward(losses(other, batch(1)), eq.LS())
            expected = Tables(False)
            expected.load_state_dict(model.state_dict())
            (sum(losses(expected, batch(0)).values()) + sum(losses(expected, batch(1)).values())).backward()
            for mine, its in zip(other.parameters(), expected.parameters(), strict=True):
                assert torch.allclose(mine.grad.to_dense(), its.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["fairgrad", "ls", "graddrop"])
def test_a_gradient_that_is_not_finite_is_blamed(method: str) -> None:
    mtl = optimizer(method, sparse=True)
    mtl.step(batch())

    def infinite(model: Tables, batch: Batch) -> dict[str, Tensor]:
        found = losses(model, batch)
        return found | {"t1": found["t1"] + (model.table(batch[0]).sum() * 0).sqrt()}

    mtl.objective.losses = infinite
    with pytest.raises(eq.NonFiniteError, match='task "t1"'):
        mtl.step(batch())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("fairgrad", {}),
        ("fairgrad", {"clip": 0.1}),
        ("fairgrad", {"features": "layer"}),
        ("ls", {}),
        ("graddrop", {}),
        ("consmtl", {}),
    ],
)
def test_sparse_adam_beside_adam(method: str, options: dict[str, Any]) -> None:
    """An optimizer of sparse tables takes no dense gradient."""
    torch.manual_seed(0)
    model = Tables(True)
    tables = [model.table.weight, *(table.weight for table in model.own)]
    optimizers = [torch.optim.SparseAdam(tables, 0.01), torch.optim.Adam(model.layer.parameters(), 0.01)]
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizers, method, **options)
    before = [table.detach().clone() for table in tables]
    steps(mtl)
    assert all(not torch.equal(table, old) for table, old in zip(tables, before, strict=True))
