"""Several micro-batches per step are as one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems

METHODS = problems.METHODS
PARTS = 4


def made(method: str) -> eq.balance.Balancer:
    return problems.balancer_of(method)


def parts_of(batch: problems.Batch) -> list[problems.Batch]:
    return list(zip(batch[0].chunk(PARTS), batch[1].chunk(PARTS), strict=True))


def lazily(losses: Any) -> Any:
    def callables(model: nn.Module, batch: Any) -> dict[str, Callable[[], Tensor]]:
        return {name: lambda name=name: losses(model, batch)[name] for name in losses(model, batch)}  # type: ignore[misc]

    return callables


def train(losses: Any, method: str, accumulate: bool, steps: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, made(method))
    for step in range(steps):
        batch = problems.batch(16, seed=step)
        mtl.step(*(parts_of(batch) if accumulate else [batch]))
        mtl.end_epoch()
    return problems.parameters_of(model)


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_are_as_the_joint_batch(method: str) -> None:
    assert problems.same(train(problems.losses, method, True), train(problems.losses, method, False), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_callables_are_as_tensors(method: str) -> None:
    eager = train(problems.losses, method, False)
    assert problems.same(train(lazily(problems.losses), method, False), eager, rtol=1e-4, atol=2e-5)
    assert problems.same(train(lazily(problems.losses), method, True), eager, rtol=1e-4, atol=2e-5)


LABELS = (("t0", "t1"), ("t1",), ("t1", "t2"), ("t0", "t2"))


def labelled_losses(model: nn.Module, batch: tuple[problems.Batch, tuple[int, ...]]) -> dict[str, Tensor]:
    """Of each part of a batch only some tasks are labelled; a task's loss is the mean over the parts that have it."""
    sums: dict[str, list[Tensor]] = {}
    for part, place in zip(zip(*(whole.chunk(len(batch[1])) for whole in batch[0]), strict=True), batch[1], strict=True):
        everything = problems.losses(model, part)  # type: ignore[arg-type]
        for name in LABELS[place]:
            sums.setdefault(name, []).append(everything[name])
    return {name: torch.stack(found).mean() for name, found in sums.items()}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_partly_labelled_micro_batches_are_as_the_joint_batch(method: str, first: int) -> None:
    """Whatever the first micro-batch holds: a task that only the last one brings is found all the same."""
    places = [(first + place) % PARTS for place in range(PARTS)]

    def trained(accumulate: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = problems.Heads()
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, labelled_losses, tasks=["t0", "t1", "t2"]),
            torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            made(method),
        )
        for step in range(4):
            whole = problems.batch(16, seed=step)
            if accumulate:
                mtl.step(*((part, (place,)) for part, place in zip(parts_of(whole), places, strict=True)))
            else:
                mtl.step((whole, tuple(places)))
            mtl.end_epoch()
        return problems.parameters_of(model)

    assert problems.same(trained(True), trained(False), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("declared_first", [True, False])
@pytest.mark.parametrize("method", ["uw", "fairgrad", "mgda"])
def test_what_is_shared_does_not_hang_on_the_first_batch(method: str, declared_first: bool) -> None:
    """A first batch that holds one task only must not make that task's head a shared parameter for good."""
    torch.manual_seed(0)
    model = problems.Heads()

    def losses(model: nn.Module, batch: tuple[problems.Batch, tuple[str, ...]]) -> dict[str, Tensor]:
        everything = problems.losses(model, batch[0])
        return {name: everything[name] for name in batch[1]}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses, tasks=["t0", "t1", "t2"]), torch.optim.SGD(model.parameters(), lr=0.0), method
    )
    all_tasks = ("t0", "t1", "t2")
    for present in (("t0",), ("t1", "t2")) if declared_first else (all_tasks,):
        mtl.step((problems.batch(), present))
    mtl.step((problems.batch(), all_tasks))
    gramian = mtl.gramian((problems.batch(), all_tasks))
    encoder = list(model.encoder.parameters())
    assert {id(p) for p in mtl.shared} <= {id(p) for p in encoder}
    rows = []
    for name in all_tasks:
        loss = problems.losses(model, problems.batch())[name]
        rows.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, encoder)]))
    expected = torch.stack(rows).double()
    assert torch.allclose(gramian, expected @ expected.T, rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("method", ["ls", "rlw", "uw", "si", "famo", "mgda", "fairgrad"])
def test_dropout_draws_the_same_masks_in_rehearsal_and_performance(method: str, lazy: bool) -> None:
    """The reference knows all micro-batches' losses at once, as nobody with little memory does."""
    torch.manual_seed(0)
    model = problems.Heads(dropout=0.5)
    losses: Any = problems.losses
    if lazy:

        def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Callable[[], Tensor]]:
            return {f"t{k}": lambda k=k: problems.losses(model, batch)[f"t{k}"] for k in range(3)}  # type: ignore[misc]

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.0), made(method))
    reference = made(method)
    for step in range(3):
        batches = [problems.batch(seed=10 * step + part) for part in range(3)]
        torch.manual_seed(step)
        mtl.step(*batches)
        torch.manual_seed(step)
        found = []
        for batch in batches:
            evaluated = losses(model, batch)
            found.append(
                {name: loss() if callable(loss) and not isinstance(loss, Tensor) else loss for name, loss in evaluated.items()}
            )
        means = {name: torch.stack([entry[name] for entry in found]).mean() for name in found[0]}
        assert mtl.last is not None
        assert torch.allclose(mtl.last.losses, torch.stack(list(means.values())).detach(), rtol=1e-5)
        if mtl.last.gramian is not None:
            rows = [torch.autograd.grad(loss, list(model.encoder.parameters()), retain_graph=True) for loss in means.values()]
            flat = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows]).double()
            assert torch.allclose(mtl.last.gramian, flat @ flat.T, rtol=1e-4, atol=1e-10)
            weights = reference.decide(eq.balance.Observation(("t0", "t1", "t2"), (0, 1, 2), mtl.last.losses, mtl.last.gramian))
        else:
            weights = reference.decide(eq.balance.Observation(("t0", "t1", "t2"), (0, 1, 2), mtl.last.losses))
            reference.update(eq.balance.Observation(("t0", "t1", "t2"), (0, 1, 2), mtl.last.losses))
            if reference.watches:
                reference.observe(mtl.last.losses, mtl.last.losses, (0, 1, 2))
        expected = torch.autograd.grad(
            sum(weight * loss for weight, loss in zip(weights.float(), means.values(), strict=True)),
            list(model.encoder.parameters()),
        )
        for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["ls", "si", "mgda"])
def test_batch_norm_sees_every_micro_batch_once(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads(norm=True)
    mtl = problems.optimizer_of(method, model)
    mtl.step(problems.batch(seed=1), problems.batch(seed=2))
    norm = model.encoder[2]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 2


@pytest.mark.parametrize("method", ["ls", "si", "mgda"])
def test_batch_norm_sees_partly_labelled_micro_batches_once(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads(norm=True)

    def losses(model: nn.Module, batch: tuple[problems.Batch, tuple[str, ...]]) -> dict[str, Tensor]:
        everything = problems.losses(model, batch[0])
        return {name: everything[name] for name in batch[1]}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses, tasks=["t0", "t1", "t2"]), torch.optim.SGD(model.parameters(), lr=0.01), method
    )
    mtl.step((problems.batch(seed=1), ("t0", "t1")), (problems.batch(seed=2), ("t1", "t2")))
    norm = model.encoder[2]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 2


def test_the_drop_in_remembers_what_is_shared() -> None:
    """A call with one task alone balances what earlier calls showed to be shared, not all that this task reaches."""
    torch.manual_seed(0)
    model, balancer = problems.Heads(), eq.FairGrad()
    for present in (("t0", "t1", "t2"), ("t0",)):
        model.zero_grad()
        everything = problems.losses(model, problems.batch())
        report = eq.backward({name: everything[name] for name in present}, balancer)
    assert report.gramian is not None
    loss = problems.losses(model, problems.batch())["t0"]
    expected = torch.autograd.grad(loss, [*model.encoder.parameters(), *model.heads[0].parameters()])
    norm = torch.cat([gradient.flatten() for gradient in expected[:4]]).norm()
    assert float(report.gramian) == pytest.approx(float(norm) ** 2, rel=1e-5)
    for parameter, gradient in zip(model.heads[0].parameters(), expected[4:], strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-5)
