"""Graphs that cannot be differentiated for all tasks at once: ``batched=`` says so once and goes on one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equipoise as eq
from tests.problems import Heads, batch, losses, parameters_of, same


class Looking(torch.autograd.Function):
    """Halves gradients that are large, which depends on their values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / 2 if float(gradient.abs().max()) > 0.1 else gradient


class InNumPy(Looking):
    """Takes the gradient out of torch."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.from_numpy(gradient.numpy() * 3)


class InPlace(Looking):
    """Writes to a tensor of its own."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros(gradient.shape).add_(gradient)


class Wrapped(nn.Module):
    def __init__(self, encoder: nn.Module, act: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = encoder
        self.act = act

    def forward(self, inputs: Tensor) -> Tensor:
        return self.act(self.inner, inputs)


ACTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "dropout in a checkpoint": lambda inner, x: checkpoint(inner, x, use_reentrant=False),
    "a look at values": lambda inner, x: Looking.apply(inner(x)),
    "numpy": lambda inner, x: InNumPy.apply(inner(x)),
    "in place": lambda inner, x: InPlace.apply(inner(x)),
}


def optimizer(act: str, method: str, batched: int | None, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Heads(dropout=0.5)
    model.encoder = Wrapped(model.encoder, ACTS[act])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    return eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, method, batched=batched, **options)


def steps(mtl: eq.MultiTaskOptimizer) -> Tensor:
    """Takes three, and gives the random state after them."""
    torch.manual_seed(1)
    for seed in range(3):
        mtl.step(batch(seed=seed))
    return torch.get_rng_state()


@pytest.mark.parametrize("method", ["fairgrad", "graddrop"])
@pytest.mark.parametrize("batched", [0, 2])
@pytest.mark.parametrize("act", ACTS)
def test_the_step_is_that_without_batched(act: str, batched: int, method: str) -> None:
    plain, together = optimizer(act, method, None), optimizer(act, method, batched)
    after = steps(plain)
    with pytest.warns(UserWarning, match=r"one after the other; leave batched= out") as caught:
        assert torch.equal(after, steps(together))
    assert len(caught) == 1
    assert same(parameters_of(plain.objective.model), parameters_of(together.objective.model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("act", ACTS)
def test_a_proxy_goes_on_as_well(act: str) -> None:
    """It batches of its own accord, and says nothing."""
    mtl = optimizer(act, "fairgrad", None)
    model = mtl.objective.model
    proxied = eq.MultiTaskOptimizer(mtl.objective, mtl.optimizer, "fairgrad", proxy=model.encoder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for each in (mtl, proxied):
        model.load_state_dict(before)
        torch.manual_seed(1)
        each.step(batch())
        found.append(each.last.gramian)
    exact, estimate = found
    assert torch.allclose(exact / exact.trace(), estimate / estimate.trace(), rtol=1e-3, atol=1e-6)


def test_an_error_of_the_user_s_own_is_passed_on() -> None:
    class Broken(Looking):
        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise KeyError("mine")

    ACTS["broken"] = lambda inner, x: Broken.apply(inner(x))
    mtl = optimizer("broken", "fairgrad", 0)
    before = parameters_of(mtl.objective.model)
    with pytest.raises(KeyError, match="mine"):
        mtl.step(batch())
    assert same(before, parameters_of(mtl.objective.model))


def test_what_can_be_batched_is_and_says_nothing() -> None:
    ACTS["plain"] = lambda inner, x: inner(x)
    mtl = optimizer("plain", "fairgrad", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mtl.step(batch())
    assert mtl._balancing._by_gradients._filling.batched == 0
