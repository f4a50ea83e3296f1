"""The balanced loss under wrappers that spread a model: the update is that of one process with the joint batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import equipoise as eq
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import State, share, state
from tests.states import kept, same_state

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
    "views": {"gradient_as_bucket_view": True},
}

# Six steps: by a sketch, by what all processes have, by what some have.
STEPS = 6


@pytest.fixture(scope="module")
def four() -> Iterator[Pool]:
    made = Pool(4)
    yield made
    made.close()


def seeded() -> problems.Heads:
    torch.manual_seed(5)
    return problems.Heads()


def counted(model: nn.Module) -> list[int]:
    """Grows with every gradient that is accumulated."""
    fired: list[int] = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: fired.append(1))
    return fired


def proxy_of(source: str, model: problems.Heads, memory: float = 0.0) -> eq.Proxy:
    return eq.Proxy(model.encoder[2] if source == "module" else source, audit=0, memory=memory)


def alone(method: str, source: str, *, memory: float = 0.0) -> State:
    """The optimizer on one process with the joint batch."""
    model = seeded()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    proxy = proxy_of(source, model, memory)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), sgd, eq.balancer(method), proxy=proxy)
    for step in range(STEPS):
        mtl.step(problems.batch(16, seed=step))
    return state(model)


def averaged(rank: int, count: int, method: str, source: str, way: str = "plain", memory: float = 0.0) -> State:
    """A loop with DistributedDataParallel, in which one line has changed."""
    model = seeded()
    wrapped = DistributedDataParallel(model, **WAYS[way])
    fired = counted(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.01)
    balancer, proxy = eq.balancer(method), proxy_of(source, model, memory)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = problems.losses(wrapped, share(problems.batch(16, seed=step), rank, count))
        loss = eq.balanced_loss(losses, balancer, proxy, heads="own")
        assert not fired
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
        loss.backward()
        assert fired
        fired.clear()
        optimizer.step()
    return state(model)


def agree(states: list[State], expected: State, tolerance: float = 2e-5) -> None:
    for found in states:
        assert problems.same(found, states[0])
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize(("method", "source"), [("fairgrad", "last"), ("nash-mtl", "module"), ("upgrad", "last 2")])
@pytest.mark.parametrize("way", WAYS)
def test_data_parallelism(pool: Pool, method: str, source: str, way: str) -> None:
    agree(pool.run(averaged, method, source, way), alone(method, source))


def test_four_processes_and_a_memory(four: Pool) -> None:
    agree(four.run(averaged, "fairgrad", "last", "plain", 0.5), alone("fairgrad", "last", memory=0.5))


def partly(rank: int, count: int, source: str, accumulate: bool, own: bool) -> State:
    """Every process's batch lacks another task in every other step; one process has them all."""
    model = seeded()
    wrapped: nn.Module = DistributedDataParallel(model, find_unused_parameters=True) if count > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer, proxy = eq.FairGrad(), proxy_of(source, model)
    options: dict[str, Any] = {"heads": "own", "shared": model.encoder} if own else {}
    for step in range(STEPS):
        optimizer.zero_grad()
        batch = problems.batch(16, seed=step)
        lacks = [{"t0"}, {"t1", "t2"}, {"t2"}, set()] if step % 2 else [set()] * 4
        if count > 1:
            found = problems.losses(wrapped, share(batch, rank, count))
            losses = {task: loss for task, loss in found.items() if task not in lacks[rank]}
        else:
            rows = {t: torch.tensor([t not in lacks[row // 4] for row in range(16)]) for t in ("t0", "t1", "t2")}
            errors = [(out - target).square() for out, target in zip(model(batch[0]), batch[1].T, strict=True)]
            losses = {t: problems.SCALES[k] * errors[k][mask].mean() for k, (t, mask) in enumerate(rows.items())}
        loss = eq.balanced_loss(losses, balancer, proxy, tasks=["t0", "t1", "t2"], **options)
        (loss / 2 if accumulate else loss).backward()
        optimizer.step()
    return state(model)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("source", ["last", "module"])
def test_other_tasks_in_every_process(four: Pool, source: str, own: bool) -> None:
    agree(four.run(partly, source, True, own), partly(0, 1, source, True, own))


def unlike(rank: int, count: int) -> tuple[list[str], State]:
    """A first batch whose tasks do not tell what is shared, a task that is not finite, no tasks at all: said by all."""
    model = seeded()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    balancer = eq.FairGrad()
    said = []
    for spoil in ("few", "infinite", "none"):
        losses = problems.losses(wrapped, share(problems.batch(16), rank, count))
        if rank == 1 and spoil == "few":
            losses = {"t0": losses["t0"]}
        if rank == 1 and spoil == "infinite":
            losses["t1"] = losses["t1"] * torch.inf
        if rank == 1 and spoil == "none":
            losses = {}
        try:
            eq.balanced_loss(losses, balancer, tasks=["t0", "t1", "t2"])
        except eq.EquipoiseError as error:
            said.append(f"{type(error).__name__}: {error}")
        # All still are in the same place.
        again = problems.losses(wrapped, share(problems.batch(16), rank, count))
        eq.balanced_loss(again, eq.FairGrad()).backward()
        model.zero_grad()
    return said, state(model)


def test_what_one_process_cannot_do_all_refuse(pool: Pool) -> None:
    for said, _ in pool.run(unlike):
        assert "shared=" in said[0]
        assert said[1].startswith("NonFiniteError")
        assert "no losses were given" in said[2]


def _local(model: nn.Module) -> list[Any]:
    """Parameters and gradients of this process, as they lie there now."""
    tensors = [t for p in model.parameters() for t in (p.detach(), p.grad)]
    return kept([t.to_local() if isinstance(t, DTensor) else t for t in tensors])


def sharded(rank: int, count: int, source: str, kind: str, heads: str, accumulate: int = 1) -> State:
    """A loop with ``fully_shard``, in which one line has changed."""
    model = seeded()
    mesh = init_device_mesh("cpu", (count,))
    if kind == "layers":
        for layer in (model.encoder[0], model.encoder[2], *model.heads):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer, proxy = eq.FairGrad(), eq.Proxy(source)
    for step in range(STEPS):
        optimizer.zero_grad()
        for part in range(accumulate):
            model.set_requires_gradient_sync(part == accumulate - 1)
            losses = problems.losses(model, share(problems.batch(16, seed=step), rank, count))
            before = _local(model)
            loss = eq.balanced_loss(losses, balancer, proxy, heads=heads)
            assert same_state(_local(model), before)
            (loss / accumulate).backward()
        optimizer.step()
    return {name: p.full_tensor().detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["layers", "root"])
@pytest.mark.parametrize(("source", "accumulate"), [("last", 1), ("last", 2), ("last 2", 1), ("features", 1)])
def test_fully_shard(pool: Pool, source: str, kind: str, accumulate: int) -> None:
    agree(pool.run(sharded, source, kind, "own", accumulate), alone("fairgrad", source))


def beyond(rank: int, count: int) -> list[str]:
    """What needs the parameters themselves is refused where they are sharded."""
    said = []
    mesh = init_device_mesh("cpu", (count,))
    batch = share(problems.batch(16), rank, count)
    model = seeded()
    for layer in (*model.encoder[::2], *model.heads):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    asked: list[dict[str, Any]] = [
        {"proxy": "exact"},
        {"proxy": "auto"},
        {"proxy": eq.Proxy("last", audit=2)},
        {"proxy": model.encoder[2]},
        {"shared": model.encoder},
    ]
    said += [_refused(lambda o=o: eq.balanced_loss(problems.losses(model, batch), eq.FairGrad(), **o)) for o in asked]
    # Only activations can be differentiated: not what a plain module's parameters would have to be.
    said.append(_refused(lambda: eq.balanced_loss(_last_norm(rank, count), eq.FairGrad())))
    assert all(p.grad is None for p in model.parameters())
    losses = problems.losses(model, batch)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in model.parameters())
    parallel = seeded()
    for layer in (module for module in parallel.modules() if isinstance(module, nn.Linear)):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
        layer.bias = nn.Parameter(distribute_tensor(layer.bias.detach(), mesh, [Shard(0)]))
    parts = tuple(distribute_tensor(part, mesh, [Shard(0)]) for part in batch)
    said.append(_refused(lambda: eq.balanced_loss(problems.losses(parallel, parts), eq.FairGrad())))  # type: ignore[arg-type]
    flat = FullyShardedDataParallel(seeded(), device_id=torch.device("cpu"))
    said.append(_refused(lambda: eq.balanced_loss(problems.losses(flat, batch), eq.FairGrad())))
    return said


class _Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.norm(x)
        return [head(features).squeeze(-1) for head in self.heads]


def _last_norm(rank: int, count: int) -> dict[str, Tensor]:
    torch.manual_seed(5)
    model = _Norm()
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
    return problems.losses(model, share(problems.batch(16), rank, count))


def _refused(call: Any) -> str:
    with pytest.raises(eq.InputError) as error:
        call()
    return str(error.value)


def test_what_sharding_leaves_no_way_to(pool: Pool) -> None:
    for said in pool.run(beyond):
        assert all("\n" not in line for line in said)
        assert all("fully_shard" in line for line in said), said
