"""Failures in the middle of a step, copies, pickles, and places where gradients are switched off."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems
from tests.states import assert_same_state, kept

METHODS = [info.name for info in eq.methods()]


def hooks_of(model: nn.Module) -> int:
    count = 0
    for parameter in model.parameters():
        count += len(parameter._backward_hooks or ())
        count += len(getattr(parameter, "_post_accumulate_grad_hooks", None) or ())
    return count + sum(len(module._forward_hooks) for module in model.modules())


class Failing:
    """A loss function that fails on demand: after so many evaluations, or inside the backward pass."""

    def __init__(self) -> None:
        self.how = ""

    def __call__(self, model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
        found: dict[str, Any] = dict(problems.losses(model, batch))
        if self.how == "forward":
            raise RuntimeError("on demand")
        if self.how == "backward":

            def fail(_: Tensor) -> Tensor:
                raise RuntimeError("on demand")

            found["t1"].register_hook(fail)
        if self.how == "callable":

            def broken() -> Tensor:
                raise RuntimeError("on demand")

            found["t2"] = broken
        if self.how == "infinite loss":
            found["t1"] = found["t1"] * float("inf")
        if self.how == "infinite gradient":
            found["t1"] = found["t1"] + (found["t1"] - found["t1"]).sqrt()
        if self.how == "infinite gradient of a head":
            head = model.heads[1].weight  # type: ignore[index,union-attr]
            found["t1"] = found["t1"] + (head - head).abs().sqrt().sum()
        return found


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    "how", ["forward", "backward", "callable", "infinite loss", "infinite gradient", "infinite gradient of a head"]
)
@pytest.mark.parametrize("method", ["ls", "uw", "famo", "pcgrad", "nash-mtl"])
def test_after_a_failure_training_goes_on_as_if_it_had_not_been(method: str, how: str, micro_batches: int) -> None:
    def trained(fail: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        model, losses = problems.Heads(), Failing()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, eq.balancer(method))
        for step in range(4):
            batches = [problems.batch(seed=10 * step + part) for part in range(micro_batches)]
            if fail and step == 2:
                losses.how = how
                with pytest.raises((RuntimeError, eq.NonFiniteError)) as caught:
                    mtl.step(*batches)
                if "infinite" in how:
                    assert isinstance(caught.value, eq.NonFiniteError)
                    assert caught.value.tasks == ("t1",)
                    assert caught.value.step == 2
                assert all(parameter.grad is None for parameter in model.parameters())
                losses.how = ""
            mtl.step(*batches)
        return {"state": mtl.state_dict(), "parameters": problems.parameters_of(model), "hooks": hooks_of(model)}

    assert_same_state(trained(True), trained(False))


def test_after_a_failure_with_features() -> None:
    torch.manual_seed(0)
    model, losses = problems.Heads(), Failing()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), "mgda", features=model.encoder
    )
    mtl.step(problems.batch())
    for how in ("forward", "backward", "infinite loss", "infinite gradient of a head"):
        before = kept(mtl.state_dict())
        losses.how = how
        with pytest.raises((RuntimeError, eq.NonFiniteError)):
            mtl.step(problems.batch())
        assert_same_state(mtl.state_dict(), before)
        assert hooks_of(model) == 0
    losses.how = ""
    mtl.step(problems.batch())


def test_an_optimizer_that_fails_leaves_the_balancer_as_it_was() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), optimizer, "pcgrad")
    mtl.step(problems.batch())
    before = kept(mtl.balancer.state_dict())

    def broken(*_: Any) -> None:
        raise RuntimeError("on demand")

    handle = optimizer.register_step_pre_hook(broken)
    with pytest.raises(RuntimeError, match="on demand"):
        mtl.step(problems.batch())
    handle.remove()
    assert_same_state(mtl.balancer.state_dict(), before)
    assert mtl.steps == 1


def test_batch_norm_survives_a_bad_batch() -> None:
    """One batch of infinities must not leave running statistics that are not finite."""
    torch.manual_seed(0)
    model = problems.Heads(norm=True)
    mtl = problems.optimizer_of("mgda", model)
    mtl.step(problems.batch())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    inputs, targets = problems.batch()
    with pytest.raises(eq.NonFiniteError):
        mtl.step((inputs * float("nan"), targets))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("how", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("method", METHODS)
def test_copies_go_their_own_way(method: str, how: Callable[[Any], Any]) -> None:
    mtl = problems.optimizer_of(eq.balancer(method), make=torch.optim.Adam, lr=0.01)
    for step in range(3):
        mtl.step(problems.batch(seed=step))
    twin = how(mtl)
    before = problems.parameters_of(mtl.objective.model)
    for step in range(3):
        twin.step(problems.batch(seed=10 + step))
    assert problems.same(before, problems.parameters_of(mtl.objective.model)), "the copy moved the original"
    for step in range(3):
        mtl.step(problems.batch(seed=10 + step))
    assert problems.same(problems.parameters_of(twin.objective.model), problems.parameters_of(mtl.objective.model))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("method", METHODS)
def test_balancers_are_copied_with_their_state(method: str, how: Callable[[Any], Any]) -> None:
    mtl = problems.optimizer_of(eq.balancer(method))
    for step in range(3):
        mtl.step(problems.batch(seed=step))
        mtl.end_epoch()
    twin = how(mtl.balancer)
    assert_same_state(twin.state_dict(), mtl.balancer.state_dict())
    assert repr(twin) == repr(mtl.balancer)


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["ls", "famo", "mgda"])
def test_where_gradients_are_off_one_line_says_so(method: str, switch: Any) -> None:
    mtl = problems.optimizer_of(method)
    before = problems.parameters_of(mtl.objective.model)
    with switch(), pytest.raises(eq.InputError, match="does not require grad"):
        mtl.step(problems.batch())
    assert problems.same(before, problems.parameters_of(mtl.objective.model))
    mtl.step(problems.batch())


@pytest.mark.parametrize("method", ["ls", "dwa", "mgda"])
def test_nothing_of_the_drop_in_outlives_its_balancer(method: str) -> None:
    model, balancer = problems.Heads(), eq.balancer(method)
    eq.backward(problems.losses(model, problems.batch()), balancer)
    weight = weakref.ref(model.encoder[0].weight)
    witness = weakref.ref(balancer)
    del model, balancer
    gc.collect()
    assert witness() is None
    assert weight() is None


def test_an_optimizer_is_freed_without_the_collector() -> None:
    mtl = problems.optimizer_of("mgda")
    mtl.step(problems.batch())
    buffer = weakref.ref(mtl._balancing)
    gc.disable()
    try:
        del mtl
        assert buffer() is None, "a reference cycle keeps the [K, P] buffer until the collector runs"
    finally:
        gc.enable()


def test_an_unhashable_balancer_is_a_balancer_too() -> None:
    class Mine(eq.balance.GramianBalancer):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Mine)

        def weights(self, gramian: Tensor) -> Tensor:
            return torch.ones(len(gramian), dtype=gramian.dtype)

    model, balancer = problems.Heads(), Mine()
    eq.backward(problems.losses(model, problems.batch()), balancer)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_two_optimizers_on_one_model() -> None:
    """Another balancer for every other step; each steps as if it were the first that the model ever met."""
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    objective = eq.Objective(model, problems.losses)
    both = {name: eq.MultiTaskOptimizer(objective, optimizer, name) for name in ("mgda", "ls")}
    for step in range(6):
        for name, mtl in both.items():
            fresh, its = copy.deepcopy((model, optimizer))
            fresh.zero_grad()
            alone = eq.MultiTaskOptimizer(eq.Objective(fresh, problems.losses), its, name)
            data = problems.batch(seed=step)
            assert_same_state(mtl.step(data), alone.step(data))
            assert_same_state(problems.parameters_of(model), problems.parameters_of(fresh))
            assert_same_state(optimizer.state_dict(), its.state_dict())
