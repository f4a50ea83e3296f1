"""The drop-in on a model wrapped in DistributedDataParallel takes the step that one process takes on the joint batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equipoise as eq
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import State, share, state

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
    "views": {"gradient_as_bucket_view": True},
}


def wrapped_loop(rank: int, count: int, method: str, way: str = "plain", extra: str = "", shared: bool = False) -> State:
    """Four steps of two accumulated batches."""
    torch.manual_seed(5)
    model = problems.Heads()
    wrapped = DistributedDataParallel(model, **WAYS[way]) if count > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    balancer = eq.balancer(method)
    for step in range(4):
        optimizer.zero_grad()
        for part in range(2):
            batch = share(problems.batch(16, seed=10 * step + part), rank, count)
            losses: dict[str, Any] = problems.losses(wrapped, batch)
            if extra == "callables":
                losses = {name: (lambda name=name, batch=batch: problems.losses(wrapped, batch)[name]) for name in losses}
            if extra == "before":
                sum(losses.values()).backward(retain_graph=True)
            if extra == "after":
                penalty = sum(p.square().sum() for p in model.parameters())
                kept = losses["t0"] * 0.5 + losses["t1"] * 0.5 + losses["t2"] * 0.5 + 0.001 * penalty
                eq.backward({name: loss * 1.0 for name, loss in losses.items()}, balancer)
                kept.backward()
                continue
            eq.backward(losses, balancer, shared=model.encoder if shared else None)
        optimizer.step()
    return state(model)


def agree(pool: Pool, *arguments: Any) -> None:
    first, second = pool.run(wrapped_loop, *arguments)
    assert problems.same(first, second)
    alone = wrapped_loop(0, 1, *arguments)
    for name in alone:
        assert torch.allclose(first[name], alone[name], atol=1e-5), (name, first[name] - alone[name])


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("method", ["famo", "mgda", "pcgrad"])
def test_the_drop_in(pool: Pool, method: str, way: str) -> None:
    agree(pool, method, way)


@pytest.mark.parametrize("extra", ["callables", "before"])
@pytest.mark.parametrize("method", ["famo", "mgda"])
def test_beside(pool: Pool, method: str, extra: str) -> None:
    agree(pool, method, "plain", extra)
