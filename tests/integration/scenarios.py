"""What the tests of data parallelism run in every process, and with the joint batches in one.

Each scenario takes ``(rank, count)`` first; it uses its own share of the data, all of it if it is alone.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equipoise as eq
from equipoise.balance import BayesAggMTL
from equipoise.balance.double_sampling import further_batches
from equipoise.nets import position_groups
from equipoise.study import parse_methods
from tests import problems
from tests.nets import flows
from tests.states import kept, same_state

State = dict[str, Tensor]

STEPS = 20


def share(batch: problems.Batch, rank: int, count: int) -> problems.Batch:
    """A process's part of a batch."""
    size = len(batch[0]) // count
    part = slice(rank * size, (rank + 1) * size)
    return batch[0][part], batch[1][part]


def model_of(rank: int, **options: Any) -> nn.Module:
    # Every process starts elsewhere: the first one's parameters must win.
    torch.manual_seed(rank)
    return problems.Heads(**options)


def state(model: nn.Module) -> State:
    return problems.parameters_of(model)


def plain(rank: int, count: int, method: str, micro_batches: int = 1, options: dict[str, Any] | None = None) -> State:
    """Twenty steps with every task everywhere; the method as studies write it."""
    model = model_of(rank)
    balancer = parse_methods(method)[0].make(0) if ":" in method else problems.balancer_of(method)
    mtl = problems.optimizer_of(balancer, model, lr=0.01, **(options or {}))
    for step in range(STEPS):
        batches = [share(problems.batch(16, seed=100 * step + m), rank, count) for m in range(micro_batches)]
        mtl.step(*batches)
        if step % 5 == 4:
            mtl.end_epoch()
    return state(model)


def lent(rank: int, count: int, way: str, router: str) -> State:
    """Ten steps of LDC-MTL whose router the model's optimizer moves."""
    model = model_of(rank if way == "step" else 0)  # the drop-in shares no parameters
    assert isinstance(model, problems.Heads)
    options: dict[str, Any] = {} if router == "vector" else {"router": "mlp", "features": model.encoder}
    balancer = eq.LDCMTL(initial=[1.0, 8.0, 0.1], **options)
    own = balancer.parameters(3, 8)
    optimizer = torch.optim.Adam([*model.parameters(), *own], lr=0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), optimizer, balancer) if way == "step" else None
    for step in range(STEPS // 2):
        mine = share(problems.batch(16, seed=step), rank, count)
        if mtl is not None:
            mtl.step(mine)
        else:
            optimizer.zero_grad()
            eq.backward(problems.losses(model, mine), balancer)
            optimizer.step()
    return state(model) | {f"router {place}": parameter.detach().clone() for place, parameter in enumerate(own)}


def features(rank: int, count: int, method: str) -> State:
    """Twenty steps on the Gramian of the encoder's output."""
    model = model_of(rank)
    assert isinstance(model, problems.Heads)
    mtl = problems.optimizer_of(eq.balancer(method), model, lr=0.01, features=model.encoder)
    for step in range(STEPS):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    return state(model)


def rotated(rank: int, count: int, group: bool) -> State:
    """Twenty steps with rotated features; the rotations are part of what must agree."""
    balancer = eq.RotoGrad(lr=0.02)
    options = {"process_group": dist.group.WORLD} if group and count > 1 else {}
    model = model_of(rank)
    mtl = problems.optimizer_of(balancer, model, lr=0.01, **options)
    for step in range(STEPS):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    assert balancer.matrices is not None
    return state(model) | {"rotations": balancer.matrices.float()}


def bayesian(rank: int, count: int) -> State:
    """Twenty steps of BayesAgg-MTL, whose posteriors are of all processes' samples; they are part of what must agree."""
    model = model_of(rank)
    balancer = BayesAggMTL()
    mtl = problems.optimizer_of(balancer, model, lr=0.01)
    for step in range(STEPS):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
        if step % 5 == 4:
            mtl.end_epoch()
    return state(model) | {f"posterior of {task}": known[0].float() for task, known in balancer.known.items()}


def unlike(rank: int, count: int) -> State:
    """A task that one of the processes lacks, in BayesAgg-MTL; what each of them says about it."""
    mtl = problems.optimizer_of(BayesAggMTL(), model_of(rank))
    function = mtl.objective.losses

    def partly(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = dict(function(model, batch))
        return found if rank == 0 else {name: found[name] for name in ("t0", "t1")}  # type: ignore[misc]

    mtl.objective.losses = partly
    with pytest.raises(eq.InputError, match='task "t2" is in 1 of 2'):
        mtl.step(share(problems.batch(16), rank, count))
    return {}


def wrapped(rank: int, count: int, method: str) -> State:
    """As :func:`plain`, with a model wrapped in DistributedDataParallel."""
    model = model_of(rank)
    passed = DistributedDataParallel(model) if count > 1 else model
    mtl = problems.optimizer_of(eq.balancer(method), passed, lr=0.01)
    for step in range(STEPS):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    return state(model)


def task_positions(rank: int, count: int, method: str) -> State:
    """As :func:`wrapped`, with NORMAL, whose tasks learn their places on a flow."""
    model = flows.model()
    passed = DistributedDataParallel(model) if count > 1 else model
    optimizer = torch.optim.SGD(position_groups(model, 0.05), 0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(passed, flows.losses), optimizer, eq.balancer(method))
    for step in range(STEPS):
        mtl.step(share(flows.batch(step), rank, count))
    return state(model)


def some_losses(model: nn.Module, batch: tuple[Tensor, Tensor, tuple[str, ...]]) -> dict[str, Tensor]:
    everything = problems.losses(model, batch[:2])
    return {name: everything[name] for name in batch[2]}


def partly_labelled(rank: int, count: int, method: str, shared: bool, declared: bool = True) -> State:
    """One task of three is labelled in the first process's data only, another in the second's only.

    Alone, the two halves of the data are evaluated inside the loss function, so that every task's loss is the mean over
    the half that has it, and the mean of the halves' means for the task that both have.
    """
    model = model_of(rank)
    assert isinstance(model, problems.Heads)
    labels = (("t0", "t1"), ("t1", "t2"))

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        if count > 1:
            return some_losses(model, (*batch, labels[rank]))
        halves = [some_losses(model, (*share(batch, half, 2), labels[half])) for half in range(2)]
        return {"t0": halves[0]["t0"], "t1": (halves[0]["t1"] + halves[1]["t1"]) / 2, "t2": halves[1]["t2"]}

    objective = eq.Objective(model, losses, tasks=["t0", "t1", "t2"] if declared else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    mtl = eq.MultiTaskOptimizer(objective, optimizer, eq.balancer(method), shared=model.encoder if shared else None)
    for step in range(STEPS):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    return state(model)


def disjoint(rank: int, count: int, method: str) -> State:
    """Every process holds another single task, and the shared parameters are to be found."""
    model = model_of(rank, tasks=2)

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        parts = [rank] if count > 1 else [0, 1]
        halves = {r: batch if count > 1 else share(batch, r, 2) for r in parts}
        return {f"t{r}": problems.losses(model, half)[f"t{r}"] for r, half in halves.items()}

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), method)
    for step in range(STEPS):
        seeds = (1000 + 2 * step + place for place in range(further_batches(mtl.balancer)))
        further = tuple(share(problems.batch(16, tasks=2, seed=seed), rank, count) for seed in seeds)
        mtl.step(share(problems.batch(16, tasks=2, seed=step), rank, count), further=further or None)
    return state(model)


def dropin(rank: int, count: int, method: str, shared: bool) -> State:
    """The drop-in in a loop of one's own, with gradients of two batches accumulated by hand."""
    torch.manual_seed(5)  # the drop-in does not synchronise the model; that is the user's
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer = eq.balancer(method)
    for step in range(STEPS):
        optimizer.zero_grad()
        for part in range(2):
            losses = problems.losses(model, share(problems.batch(16, seed=100 * step + part), rank, count))
            further = [
                problems.losses(model, share(problems.batch(16, seed=100 * step + 50 + place), rank, count))
                for place in range(further_batches(balancer))
            ]
            eq.backward(losses, balancer, shared=model.encoder if shared else None, further=further)
        optimizer.step()
    return state(model)


def dropin_partly_labelled(rank: int, count: int, method: str) -> str:
    """The drop-in where each process holds another task: what it reaches cannot be told apart without names."""
    torch.manual_seed(5)
    model = problems.Heads(tasks=2)
    balancer = eq.balancer(method)
    everything = problems.losses(model, problems.batch(8, tasks=2))
    eq.backward({name: everything[name] for name in ("t0", "t1")}, balancer, shared=model.encoder)
    everything = problems.losses(model, problems.batch(8, tasks=2))
    try:
        eq.backward({f"t{rank}": everything[f"t{rank}"]}, balancer, shared=model.encoder)
    except eq.InputError as error:
        return str(error)
    return "no error"


def non_finite(rank: int, count: int, method: str, mode: str, where: str) -> tuple[str, tuple[str, ...], str, bool]:
    """A loss or gradient is not finite in the last process only; says what was raised and whether anything changed."""
    model = model_of(0)
    assert isinstance(model, problems.Heads)

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        bad = rank == count - 1 and mtl.steps == 2
        if bad and where == "loss":
            found["t1"] = found["t1"] * math.inf
        if bad and where == "gradient":
            # The root's slope at zero is infinite, its value is not.
            found["t1"] = found["t1"] + (found["t1"] - found["t1"]).sqrt()
        return found

    options: dict[str, Any] = {"features": model.encoder} if mode == "features" else {}
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.Adam(model.parameters(), lr=0.01), eq.balancer(method), **options
    )
    for step in range(2):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    before = kept((state(model), mtl.state_dict()))
    try:
        mtl.step(share(problems.batch(16, seed=2), rank, count))
    except eq.NonFiniteError as error:
        unchanged = same_state((state(model), mtl.state_dict()), before)
        return type(error).__name__, error.tasks, error.what, unchanged
    return "nothing", (), "", False


def agreement(rank: int, count: int, method: str) -> list[float]:
    """The Gramian that each process reports for a look at conflicts."""
    mtl = problems.optimizer_of(eq.balancer(method), model_of(rank))
    gramian = mtl.gramian(share(problems.batch(16), rank, count))
    return gramian.flatten().tolist()


def buffers_shared(rank: int, count: int) -> tuple[State, bool]:
    """Channels-last weights, integer and boolean buffers and parameters that only the optimizer knows are given to all."""
    torch.manual_seed(rank)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
            self.norm = nn.BatchNorm2d(4)
            self.register_buffer("mask", torch.rand(4) > 0.5)
            self.register_buffer("count", torch.randint(0, 9, (2,)))

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.norm(self.conv(images)).mean((2, 3))
            return out

    model = Odd()
    beside = torch.rand(2, requires_grad=True)

    def losses(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        out = model(images)
        return {"a": (out[:, 0] - beside[0]).square().mean(), "b": (out[:, 1] - beside[1]).square().mean()}

    optimizer = torch.optim.SGD([*model.parameters(), beside], lr=0.1)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, "mgda")
    given = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given["beside"] = beside.detach().clone()
    torch.manual_seed(7 + rank)
    mtl.step(torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last))
    return given | {f"{name} after": p for name, p in state(model).items()}, model.conv.weight.is_contiguous(
        memory_format=torch.channels_last
    )


def wrapped_inside(rank: int, count: int, compiled: bool) -> str:
    """A model that hides its wrapping for data parallelism, as a part or behind the compiler."""
    inner = DistributedDataParallel(model_of(rank))
    model = torch.compile(inner, backend="eager") if compiled else nn.Sequential(inner)
    try:
        eq.Objective(model, problems.losses)  # type: ignore[arg-type]
    except eq.InputError as error:
        return str(error)
    return "no error"


def double_sampling(rank: int, count: int, method: str) -> State:
    """Twenty steps on three batches each, of which every process has its share."""
    model = model_of(rank)
    mtl = problems.optimizer_of(eq.balancer(method), model, lr=0.01)
    for step in range(STEPS):
        here, *further = (share(problems.batch(16, seed=100 * step + place), rank, count) for place in range(3))
        mtl.step(here, further=further)
    return state(model)


def double_sampling_spoilt(rank: int, count: int, method: str, place: int) -> tuple[str, bool]:
    """A loss is not a number in one batch of the last process; says what was raised and whether anything changed."""
    model = model_of(0)

    def losses(model: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        found = problems.losses(model, batch[:2])
        return found if len(batch) == 2 else found | {"t1": found["t1"] * math.nan}

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), method)
    batches: list[tuple[Tensor, ...]] = [problems.batch(seed=seed) for seed in range(3)]
    mtl.step(batches[0], further=batches[1:])
    before = kept((state(model), mtl.state_dict()))
    if rank == count - 1:
        batches[place] = (*batches[place], torch.zeros(()))
    try:
        mtl.step(batches[0], further=batches[1:])
    except eq.NonFiniteError as error:
        return str(error.tasks), same_state((state(model), mtl.state_dict()), before)
    return "no error", False
