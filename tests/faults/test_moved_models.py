"""Models that are cast or moved after the first step, and a default device that is not that of the model."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._device import _device_constructors

import equipoise as eq
from equipoise.bilevel import TaskWeighting
from equipoise.engine.gradients import TaskGradients
from equipoise.teleport import COST, Probes, Schedule, Search
from tests.problems import batch, losses, optimizer_of, parameters_of, same

SOURCE = Path(eq.__file__).parent
EVERY = [info.name for info in eq.methods()]


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


def run(make: Callable[[], eq.MultiTaskOptimizer | TaskWeighting], device: str | None) -> dict[str, Tensor]:
    """Parameters after a few steps, which run under a default device."""
    mtl, batches = make(), [batch(seed=seed) for seed in range(4)]
    if device is None:
        steps(mtl, batches)
    else:
        with default_device(device):
            steps(mtl, batches)
    return parameters_of(mtl.objective.model)


def steps(mtl: eq.MultiTaskOptimizer | TaskWeighting, batches: list[tuple[Tensor, Tensor]]) -> None:
    mtl.step(batches[0])
    if isinstance(mtl, eq.MultiTaskOptimizer) and not mtl._balancing._by_features:
        mtl.step(*batches[1:3])
        mtl.gramian(batches[0])
    mtl.end_epoch()
    mtl.step(batches[3])
    mtl.load_state_dict(mtl.state_dict())


@pytest.mark.parametrize("method", EVERY)
def test_a_default_device_changes_nothing(method: str) -> None:
    assert same(run(lambda: optimizer_of(method), None), run(lambda: optimizer_of(method), "meta"))


def teleporting() -> eq.MultiTaskOptimizer:
    schedule = Schedule(budget=None, cooldown=1)
    search = Search(steps=2)
    teleport = COST(trigger=lambda gramian: True, probes=Probes("current"), schedule=schedule, search=search, guard=None)
    return optimizer_of("fairgrad", teleport=teleport, make=torch.optim.Adam)


VARIANTS: dict[str, Callable[[], eq.MultiTaskOptimizer]] = {
    "teleports": teleporting,
    "batched": lambda: optimizer_of("fairgrad", batched=2, clip=1.0),
    "features": lambda: optimizer_of("fairgrad", features="encoder"),
    "proxy": lambda: optimizer_of("fairgrad", proxy="auto"),
}


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
def test_other_ways_to_step(make: Callable[[], eq.MultiTaskOptimizer]) -> None:
    assert same(run(make, None), run(make, "meta"))


@pytest.mark.parametrize("solver", ["moml", "moco-bilevel", "auto-lambda", "forum", "bome", "bvfim"])
def test_task_weights(solver: str) -> None:
    def make() -> TaskWeighting:
        mtl = optimizer_of("ls")
        return TaskWeighting(mtl.objective, mtl.optimizer, solver)

    assert same(run(make, None), run(make, "meta"))


@pytest.mark.parametrize("method", ["fairgrad", "ls", "famo", "graddrop"])
def test_the_drop_in(method: str) -> None:
    def step(device: str | None) -> list[Tensor]:
        torch.manual_seed(0)
        model, balancer = nn.Linear(6, 3), eq.balancer(method)
        inputs, targets = batch()
        values = (model(inputs) - targets).square().mean(0)
        with default_device(device or "cpu"):
            eq.backward(values, balancer)
        return [parameter.grad for parameter in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(step(None), step("meta"), strict=True))


def test_an_answer_in_plain_numbers() -> None:
    class Numbers(eq.balance.GramianBalancer):
        def weights(self, gramian: Tensor) -> list[float]:
            return [1.0, 2.0, 3.0]

    assert same(run(lambda: optimizer_of(Numbers()), None), run(lambda: optimizer_of(Numbers()), "meta"))


def test_every_tensor_made_by_the_library_says_where() -> None:
    """Parameters of networks go where torch's own modules put theirs; all else must not follow the default device."""
    makers = {function.__name__ for function in _device_constructors()}
    silent = []
    for path in SOURCE.rglob("*.py"):
        if "nets" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in makers:
                of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
                if of_torch and not {"device", None} & {keyword.arg for keyword in node.keywords}:
                    silent.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert not silent


@pytest.mark.parametrize("method", EVERY)
def test_a_model_cast_after_the_first_step(method: str) -> None:
    """Rows and memories are of the new precision; the step is that of a training saved before and resumed in it."""
    mtl = optimizer_of(method)
    mtl.step(batch())
    resumed = optimizer_of(method)
    resumed.step(batch())
    for each in (mtl, resumed):
        each.objective.model.double()
    resumed = eq.MultiTaskOptimizer(resumed.objective, resumed.optimizer, resumed.balancer)
    wide = tuple(part.double() for part in batch(seed=1))
    for each in (mtl, resumed):
        if each.objective.further is not None:
            further = [tuple(part.double() for part in batch(seed=seed)) for seed in (2, 3)]
            each.step(wide, further=further)
        else:
            each.step(wide)
    assert same(parameters_of(mtl.objective.model), parameters_of(resumed.objective.model))
    assert all(parameter.dtype == torch.float64 for parameter in mtl.objective.model.parameters())
    engine = mtl._balancing._by_gradients.buffer.engine
    # Where the second step forms no rows (psmgd), those of the first one are there still.
    assert engine is None or engine.rows.dtype == torch.float64 or method == "psmgd"


def test_the_gramian_after_a_cast_is_in_the_new_precision() -> None:
    mtl = optimizer_of("fairgrad")
    mtl.step(batch())
    model = mtl.objective.model.double()
    wide = tuple(part.double() for part in batch(seed=1))
    shared = list(model.encoder.parameters())
    rows = []
    for loss in losses(model, wide).values():
        found = torch.autograd.grad(loss, shared, retain_graph=True)
        rows.append(torch.cat([piece.reshape(-1) for piece in found]))
    exact = torch.stack(rows) @ torch.stack(rows).T
    mtl.step(wide)
    assert torch.allclose(mtl.last.gramian, exact, rtol=1e-12)


def test_the_features_after_a_cast() -> None:
    mtl = optimizer_of("fairgrad", features="encoder")
    mtl.step(batch())
    mtl.objective.model.double()
    mtl.step(tuple(part.double() for part in batch(seed=1)))
    assert mtl._balancing._by_features.engine.rows.dtype == torch.float64


def test_rows_follow_parameters_to_another_device() -> None:
    weight = nn.Parameter(torch.ones(3))
    rows = TaskGradients([weight], 2)
    assert rows.serves([weight])
    torch.utils.swap_tensors(weight, nn.Parameter(torch.ones(3, device="meta")))  # as module.to() may do
    assert not rows.serves([weight])
