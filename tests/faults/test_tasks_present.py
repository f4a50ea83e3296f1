"""Of many tasks a batch holds few: rows, clearing and products follow those, as if there were no others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.engine.gradients import TaskGradients
from tests.problems import Heads, parameters_of, same

TASKS = 40
NAMES = [f"t{k}" for k in range(TASKS)]
Batch = tuple[Tensor, Sequence[int]]


def losses(model: Heads, batch: Batch) -> dict[str, Tensor]:
    inputs, present = batch
    features = model.encoder(inputs)
    return {f"t{k}": (1 + k) * (model.heads[k](features) - k % 3).square().mean() + 0.1 for k in present}


def batch(present: Sequence[int], seed: int = 0) -> Batch:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(seed)), present


def optimizer(balancer: object, tasks: Sequence[str] = NAMES, **options: object) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Heads(TASKS)
    if options.get("features"):
        options["features"] = model.encoder
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    return eq.MultiTaskOptimizer(eq.Objective(model, losses, tasks=tasks), optimizer, balancer, **options)


def engine(mtl: eq.MultiTaskOptimizer) -> TaskGradients:
    found = mtl._balancing._by_gradients.buffer.engine
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["fairgrad", "upgrad", "graddrop", "db-mtl", "consmtl"])
def test_a_step_is_that_of_the_tasks_present_alone(method: str) -> None:
    present = (3, 30, 7)
    many = optimizer(eq.balancer(method))
    few = optimizer(eq.balancer(method), [f"t{k}" for k in sorted(present)])
    for mtl in (many, few):
        mtl.step(batch(present))
    assert engine(many).rows.shape == engine(few).rows.shape
    assert many.last.tasks == ("t3", "t7", "t30")
    assert same(parameters_of(many.objective.model), parameters_of(few.objective.model))


@pytest.mark.parametrize("batched", [None, 0, 2])
def test_micro_batches_that_bring_new_tasks(batched: int | None) -> None:
    """Rows in the order of their coming are put into the tasks' order; the result is that of plain autograd."""
    parts = [batch((30, 7), 1), batch((3, 7), 2), batch((39, 0), 3), batch((30, 0, 1), 4)]
    mtl = optimizer(eq.UPGrad(), batched=batched)
    reference = optimizer(eq.UPGrad()).objective.model
    count: dict[int, int] = {}
    rows: dict[int, Tensor] = {}
    own: dict[int, Tensor] = {}
    encoder = list(reference.encoder.parameters())
    for part in parts:
        for k, loss in zip(part[1], losses(reference, part).values(), strict=True):
            weight = reference.heads[k].weight
            *gradients, head = torch.autograd.grad(loss, [*encoder, weight], retain_graph=True)
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            rows[k], own[k] = rows.get(k, 0) + flat, own.get(k, 0) + head
            count[k] = count.get(k, 0) + 1
    present = sorted(rows)
    matrix = torch.stack([rows[k] / count[k] for k in present]).double()
    for _ in range(2):  # the second time, in memory that is there
        before = [parameter.detach().clone() for parameter in encoder]
        mtl = optimizer(eq.UPGrad(), batched=batched) if mtl.steps == 0 else mtl
        mtl.objective.model.load_state_dict(reference.state_dict())
        mtl.step(*parts)
        assert mtl.last.tasks == tuple(f"t{k}" for k in present)
        assert torch.allclose(mtl.last.gramian, matrix @ matrix.T, rtol=1e-4)
        direction = eq.UPGrad().weights(matrix @ matrix.T) @ matrix
        after = mtl.objective.model.encoder.parameters()
        moved = torch.cat([(b - a.detach()).reshape(-1) for b, a in zip(before, after, strict=True)])
        assert torch.allclose(moved.double() / 1e-3, direction, rtol=1e-2, atol=1e-2)
        for k in present:
            assert torch.allclose(mtl.objective.model.heads[k].weight.grad, own[k] / count[k], rtol=1e-4, atol=1e-5)
    assert engine(mtl).rows.shape[0] == len(present)


def test_features_follow_the_tasks_present() -> None:
    mtl, few = optimizer("fairgrad", features=True), optimizer("fairgrad", ["t3", "t7", "t30"], features=True)
    for each in (mtl, few):
        each.step(batch((30, 7, 3)))
    assert mtl._balancing._by_features.engine.rows.shape[0] == 3
    assert same(parameters_of(mtl.objective.model), parameters_of(few.objective.model))


@pytest.mark.parametrize("source", ["auto", "last", "features"])
def test_a_proxy_of_the_tasks_present(source: str) -> None:
    many = optimizer("fairgrad", proxy=eq.Proxy(source, audit=0))
    few = optimizer("fairgrad", ["t3", "t7", "t30"], proxy=eq.Proxy(source, audit=0))
    for mtl in (many, few):
        mtl.step(batch((30, 7, 3)))
    assert torch.allclose(many.last.gramian, few.last.gramian, rtol=1e-6)
    assert same(parameters_of(many.objective.model), parameters_of(few.objective.model), rtol=1e-5)


def test_memory_of_many_tasks_is_given_back() -> None:
    mtl = optimizer("fairgrad")
    mtl.step(batch(range(TASKS)))
    assert len(engine(mtl)._storage) == TASKS
    storage = engine(mtl)._storage.data_ptr()
    for seed in range(5):
        mtl.step(batch((seed, 10 + seed)))
    mtl.step(batch(range(TASKS)))
    assert engine(mtl)._storage.data_ptr() == storage  # a few small batches in between do not cost it
    for seed in range(12):
        mtl.step(batch((seed, 20 + seed)))
    assert len(engine(mtl)._storage) == 2


def test_rows_that_were_another_task_s_are_cleared() -> None:
    """A row keeps nothing of the task that had it in the step before."""
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    rows = TaskGradients([a, b], 2)
    with rows.recording():
        rows.differentiate(0, (a + b).sum(), retain_graph=False)
        rows.differentiate(1, (a + b).sum(), retain_graph=False)
    rows.begin(1)
    with rows.recording():
        rows.differentiate(0, a.sum(), retain_graph=False)
        rows.grow(3, at_most=3)
        rows.differentiate(1, b.sum(), retain_graph=False)
    assert rows.gramian().tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 0]]
    rows.arrange([1, None, 0])
    assert rows.compact()[:, :6].tolist() == [[0, 0, 0, 1, 1, 1], [0] * 6, [1, 1, 1, 0, 0, 0]]
