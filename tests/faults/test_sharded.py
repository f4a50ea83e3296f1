"""Parameters that are sharded over processes are refused in one line that says what to use, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import equipoise as eq
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import share
from tests.states import kept, same_state


def sharded(kind: str, count: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A model spread over the processes in some way, and the encoder in it."""
    torch.manual_seed(5)
    model = problems.Heads()
    # Of one process alone a mesh is no reason to trust it: the tensors are of the same kinds.
    mesh = DeviceMesh("cpu", [torch.distributed.get_rank()]) if kind == "alone" else init_device_mesh("cpu", (count,))
    if kind == "layers":
        for layer in (*model.encoder, *model.heads):
            if next(layer.parameters(), None) is not None:
                fully_shard(layer, mesh=mesh)
    if kind in ("layers", "root", "alone"):
        fully_shard(model, mesh=mesh)
    if kind == "tensors":
        for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
            layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
            layer.bias = nn.Parameter(distribute_tensor(layer.bias.detach(), mesh, [Shard(0)]))
    if kind in ("flat", "flat views"):
        whole = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=kind == "flat views")
        return whole, model.encoder
    return model, model.encoder


def grads(model: nn.Module) -> list[Any]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def values(model: nn.Module) -> list[Tensor]:
    return [p.to_local().clone() if isinstance(p, DTensor) else p.detach().clone() for p in model.parameters()]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(eq.InputError) as error:
        call()
    return str(error.value)


def dropin(rank: int, count: int, kind: str, method: str, shared: bool) -> tuple[str, bool, bool]:
    """What the drop-in says; whether nothing changed; whether the trainer's own backward pass still works."""
    model, encoder = sharded(kind, count)
    balancer = eq.balancer(method)
    batch = share(problems.batch(16), rank, count)
    if kind == "tensors":
        batch = tuple(distribute_tensor(part, init_device_mesh("cpu", (count,)), [Shard(0)]) for part in batch)  # type: ignore[assignment]
    losses = problems.losses(model, batch)
    before = kept((balancer.state_dict(), torch.get_rng_state())), values(model), grads(model)
    said = refused(lambda: eq.backward(losses, balancer, shared=encoder if shared else None))
    unchanged = same_state((balancer.state_dict(), torch.get_rng_state()), before[0])
    unchanged &= all(torch.equal(a, b) for a, b in zip(values(model), before[1], strict=True)) and grads(model) == before[2]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    # With FSDP1's views a process may hold no part of some parameters.
    return said, unchanged, any(gradient is not None for gradient in grads(model))


KINDS = ["layers", "root", "alone", "tensors", "flat", "flat views"]


@pytest.mark.parametrize(("method", "shared"), [("ls", False), ("mgda", True), ("pcgrad", False)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_drop_in(pool: Pool, kind: str, method: str, shared: bool) -> None:
    for said, unchanged, works in pool.run(dropin, kind, method, shared):
        assert "FSDP" in said
        assert "balanced_loss" in said
        assert "\n" not in said
        assert (unchanged, works) == (True, True)


def optimizers(rank: int, count: int, kind: str) -> tuple[list[str], bool]:
    """What is said where the optimizer is made, for all that it does; whether the model was left alone."""
    model, encoder = sharded(kind, count)
    objective = eq.Objective(model, problems.losses)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = values(model)
    makes: list[Callable[[], object]] = [
        lambda: eq.MultiTaskOptimizer(objective, optimizer, "ls"),
        lambda: eq.MultiTaskOptimizer(objective, optimizer, "mgda", shared=list(model.parameters())),
        lambda: eq.MultiTaskOptimizer(objective, optimizer, "mgda", features=encoder),
        lambda: eq.MultiTaskOptimizer(objective, optimizer, "cost+fairgrad"),
    ]
    said = [refused(make) for make in makes]
    return said, all(torch.equal(a, b) for a, b in zip(values(model), before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer(pool: Pool, kind: str) -> None:
    for said, unchanged in pool.run(optimizers, kind):
        assert all("FSDP" in line and "balanced_loss" in line for line in said), said
        assert unchanged


def behind(rank: int, count: int) -> tuple[list[str], bool]:
    """The loss function uses a sharded model beside the one that it is given."""
    whole, _ = sharded("layers", count)
    head = nn.Linear(3, 3)

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        out = model(torch.stack(whole(batch[0]), 1))
        return {f"t{k}": (out[:, k] - batch[1][:, k]).square().mean() for k in range(3)}

    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    mtl = eq.MultiTaskOptimizer(eq.Objective(head, losses), optimizer, "famo")
    before = kept((mtl.state_dict(), torch.get_rng_state()))
    batch = share(problems.batch(16), rank, count)
    said = [refused(lambda: mtl.step(batch)), refused(lambda: mtl.gramian(batch))]
    return said, same_state((mtl.state_dict(), torch.get_rng_state()), before)


def test_a_model_behind_the_loss_function(pool: Pool) -> None:
    for said, unchanged in pool.run(behind):
        assert all("FSDP" in line for line in said)
        assert unchanged


def older(rank: int, count: int) -> tuple[str, bool]:
    """What ``balanced_loss`` says under a torch whose shards it has not been tried with; whether the trainer can go on."""
    model, _ = sharded("layers", count)
    losses = problems.losses(model, share(problems.batch(16), rank, count))
    here, torch.__version__ = torch.__version__, type(torch.__version__)("2.8.0")
    try:
        said = refused(lambda: eq.balanced_loss(losses, "fairgrad", "last"))
    finally:
        torch.__version__ = here
    sum(losses.values()).backward()
    return said, all(p.grad is not None for p in model.parameters())


def test_an_older_torch(pool: Pool) -> None:
    for said, goes_on in pool.run(older):
        assert "needs torch 2.13" in said
        assert goes_on
