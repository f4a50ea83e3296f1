"""A look at the Gramian leaves no trace and shows what the step then forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems
from tests.states import assert_same_state, kept


class Everything(nn.Module):
    """Dropout, batch norm and a buffer that counts evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.body = problems.Heads(dropout=0.4, norm=True)
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        assert isinstance(self.evaluations, Tensor)
        self.evaluations += 1
        found: list[Tensor] = self.body(inputs)
        return found


def made(method: str, losses: Any = problems.losses, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Everything()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, method, **options)


def lazily(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
    return {f"t{k}": lambda k=k: problems.losses(model, batch)[f"t{k}"] for k in range(3)}  # type: ignore[misc]


def trace(mtl: eq.MultiTaskOptimizer) -> dict[str, Any]:
    model = mtl.objective.model
    state = mtl.state_dict()
    state.pop("tasks")  # a first look may be what names them
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    found = {"model": model.state_dict(), "grads": grads, "state": state, "random": torch.get_rng_state(), "last": mtl.last}
    return kept(found)  # type: ignore[no-any-return]


@pytest.mark.parametrize("losses", [problems.losses, lazily])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("method", ["ls", "uw", "famo", "pcgrad", "fairgrad"])
def test_a_look_leaves_no_trace(method: str, steps_before: int, micro_batches: int, losses: Any) -> None:
    mtl = made(method, losses)
    batches = [problems.batch(seed=part) for part in range(micro_batches)]
    for _ in range(steps_before):
        mtl.step(*batches)
    before = trace(mtl)
    gramian = mtl.gramian(*batches)
    assert_same_state(trace(mtl), before)
    assert gramian.dtype == torch.float64
    assert gramian.shape == (3, 3)
    assert torch.equal(gramian, mtl.gramian(*batches))


@pytest.mark.parametrize("losses", [problems.losses, lazily])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_look_shows_what_the_step_forms(micro_batches: int, losses: Any) -> None:
    mtl = made("fairgrad", losses)
    for step in range(3):
        batches = [problems.batch(seed=10 * step + part) for part in range(micro_batches)]
        gramian = mtl.gramian(*batches)
        mtl.step(*batches)
        assert mtl.last is not None
        assert mtl.last.gramian is not None
        assert torch.equal(gramian, mtl.last.gramian)


def test_a_look_keeps_accumulated_gradients() -> None:
    mtl = made("ls")
    for parameter in mtl.objective.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    mtl.gramian(problems.batch())
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in mtl.objective.model.parameters())


def test_a_look_that_fails_leaves_no_trace() -> None:
    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        return found | {"t2": found["t2"] * float("nan")} if bool(batch[0].isnan().any()) else found

    mtl = made("fairgrad", losses)
    mtl.step(problems.batch())
    inputs, targets = problems.batch()
    before = trace(mtl)
    with pytest.raises(eq.NonFiniteError):
        mtl.gramian((inputs * float("nan"), targets))
    assert_same_state(trace(mtl), before)


def test_a_look_between_does_not_change_training() -> None:
    looked, plain = made("pcgrad"), made("pcgrad")
    torch.manual_seed(1)
    for step in range(4):
        looked.gramian(problems.batch(seed=99 + step))
        looked.step(problems.batch(seed=step))
    torch.manual_seed(1)
    for step in range(4):
        plain.step(problems.batch(seed=step))
    assert problems.same(problems.parameters_of(looked.objective.model), problems.parameters_of(plain.objective.model))
