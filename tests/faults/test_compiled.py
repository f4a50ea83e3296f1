"""``torch.compile`` around code that balances, and graphs compiled for a single backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch.*")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=True):  # it is turned off for good where that proves necessary
        yield
    torch._dynamo.reset()


def made() -> problems.Heads:
    torch.manual_seed(0)
    return problems.Heads()


def by_the_dropin(model: problems.Heads, method: str) -> Callable[[problems.Batch], Any]:
    balancer, optimizer = eq.balancer(method), torch.optim.SGD(model.parameters(), lr=0.05)

    def step(batch: problems.Batch) -> Tensor:
        optimizer.zero_grad()
        found = problems.losses(model, batch)
        report = eq.backward(found, balancer, shared=model.encoder)
        optimizer.step()
        return report.losses.sum() + 1

    return step


def by_the_step(model: problems.Heads, method: str) -> Callable[[problems.Batch], Any]:
    mtl = problems.optimizer_of(method, model)

    def step(batch: problems.Batch) -> Tensor:
        moved = (batch[0] * 2 / 2, batch[1])
        return mtl.step(moved)["t0"] + 1

    return step


def by_accumulation(model: problems.Heads, method: str) -> Callable[[problems.Batch], Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    accumulator = eq.Accumulator(eq.balancer(method), shared=model.encoder)

    def step(batch: problems.Batch) -> Tensor:
        optimizer.zero_grad()
        for part in (slice(0, 8), slice(8, 16)):
            accumulator.add(problems.losses(model, (batch[0][part], batch[1][part])))
        report = accumulator.backward()
        optimizer.step()
        return report.losses.sum() + 1

    return step


@pytest.mark.parametrize(
    ("way", "method"), [(by_the_dropin, "mgda"), (by_the_step, "mgda"), (by_the_step, "ls"), (by_accumulation, "ls")]
)
def test_a_compiled_training_step(way: Callable[..., Callable[[problems.Batch], Any]], method: str) -> None:
    """The compiler keeps out of what balances, and so the step is that of the same code run as it is."""
    model, other = made(), made()
    compiled, plain = torch.compile(way(model, method), backend="aot_eager"), way(other, method)
    for seed in range(3):
        batch = problems.batch(seed=seed)
        assert torch.allclose(compiled(batch), plain(batch), rtol=1e-4, atol=1e-5)
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_in_one_graph_says_so() -> None:
    with pytest.raises(Exception, match="equipoise differentiates the losses itself"):
        torch.compile(by_the_step(made(), "ls"), backend="aot_eager", fullgraph=True)(problems.batch())


def test_the_dropin_on_a_graph_that_was_compiled_for_one_pass() -> None:
    """The losses are the caller's: they are refused once, and evaluated again they are those of another graph."""
    model = made()
    compiled = torch.compile(model, backend="aot_eager")
    sum(problems.losses(compiled, problems.batch()).values()).backward()  # type: ignore[arg-type,union-attr]
    model.zero_grad()
    balancer = eq.balancer("mgda")
    before = torch.get_rng_state()
    with pytest.raises(eq.InputError, match="evaluate the losses again"):
        eq.backward(problems.losses(compiled, problems.batch()), balancer, shared=model.encoder)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
    model.zero_grad()
    report = eq.backward(problems.losses(compiled, problems.batch()), balancer, shared=model.encoder)  # type: ignore[arg-type]
    expected = eq.backward(problems.losses(made(), problems.batch()), eq.MGDA())
    assert report.gramian is not None
    assert expected.gramian is not None
    assert torch.allclose(report.gramian, expected.gramian, rtol=1e-3, atol=1e-6)


def test_the_dropin_where_a_single_task_comes_first() -> None:
    """A batch of one task must not let the graph be compiled for one backward pass: the next one takes several."""

    def trained(model: nn.Module, encoder: nn.Module) -> dict[str, Tensor]:
        balancer, optimizer = eq.MGDA(), torch.optim.SGD(model.parameters(), lr=0.05)
        for seed, present in enumerate([("t1",), ("t0", "t1", "t2"), ("t2",), ("t0", "t2")]):
            optimizer.zero_grad()
            everything = problems.losses(model, problems.batch(seed=seed))
            found = {name: everything[name] for name in present}
            eq.backward(found, balancer, shared=encoder, tasks=["t0", "t1", "t2"])
            optimizer.step()
        return {name.replace("_orig_mod.", ""): value for name, value in problems.parameters_of(model).items()}

    model, other = made(), made()
    compiled = torch.compile(model, backend="aot_eager")
    first = trained(compiled, model.encoder)  # type: ignore[arg-type]
    assert problems.same(first, trained(other, other.encoder), rtol=1e-4, atol=1e-5)
