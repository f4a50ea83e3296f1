"""Stopping and going on: bit-identical parameters, whatever the balancer remembers."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import equipoise as eq
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of
from tests.states import assert_same_state, kept

METHODS = [info.name for info in eq.methods()]


def _balancer(name: str) -> eq.balance.Balancer:
    return eq.NashMTL(update_every=3) if name == "nash-mtl" else eq.balancer(name)


def _train(mtl: eq.MultiTaskOptimizer, steps: range) -> None:
    for step in steps:
        mtl.step(batch(seed=step))
        if step % 3 == 2:
            mtl.end_epoch()


@pytest.mark.parametrize("name", METHODS)
def test_resumed_training_is_the_same_to_the_bit(name: str) -> None:
    straight = optimizer_of(_balancer(name), make=torch.optim.Adam, lr=0.01)
    _train(straight, range(14))
    stopped = optimizer_of(_balancer(name), make=torch.optim.Adam, lr=0.01)
    _train(stopped, range(7))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    resumed = optimizer_of(_balancer(name), Heads(), make=torch.optim.Adam, lr=0.01)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.steps == 7
    _train(resumed, range(7, 14))
    assert_same_state(parameters_of(resumed.objective.model), parameters_of(straight.objective.model))
    assert_same_state(resumed.state_dict(), straight.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_state_is_a_copy(name: str) -> None:
    mtl = optimizer_of(_balancer(name), make=torch.optim.Adam, lr=0.01)
    _train(mtl, range(4))
    state = mtl.balancer.state_dict()
    frozen = kept(state)
    _train(mtl, range(4, 8))
    assert_same_state(state, frozen)


@pytest.mark.parametrize("name", METHODS)
def test_balancers_can_be_copied_and_pickled(name: str) -> None:
    mtl = optimizer_of(_balancer(name))
    _train(mtl, range(4))
    for copied in (copy.deepcopy(mtl.balancer), pickle.loads(pickle.dumps(mtl.balancer))):
        assert repr(copied) == repr(mtl.balancer)
        assert_same_state(copied.state_dict(), mtl.balancer.state_dict())


def test_a_state_of_other_tasks_or_another_balancer_is_refused() -> None:
    mtl = optimizer_of("famo")
    mtl.step(batch())
    state = mtl.state_dict()
    other = optimizer_of("dwa")
    with pytest.raises(eq.InputError, match="DWA keeps the state"):
        other.load_state_dict(state)
    two = optimizer_of("famo", Heads(2))
    two.step(batch(tasks=2))
    with pytest.raises(eq.InputError, match="the state is of the tasks t0, t1, t2; the tasks here are t0, t1"):
        two.load_state_dict(state)
    with pytest.raises(eq.InputError, match="saved without a scaler; this optimizer has one"):
        optimizer_of("famo", scaler=torch.amp.GradScaler("cpu")).load_state_dict(state)


class Adapted(torch.nn.Module):
    """A frozen layer with a low-rank adapter beside it, statistics that move, and heads."""

    def __init__(self, rank: int = 2, base: float = 0.5) -> None:
        super().__init__()
        self.base = torch.nn.Linear(6, 5)
        torch.nn.init.constant_(self.base.weight, base)
        self.base.requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(6).requires_grad_(False)
        self.adapter = torch.nn.Sequential(torch.nn.Linear(6, rank, bias=False), torch.nn.Linear(rank, 5, bias=False))
        self.heads = torch.nn.ModuleList(torch.nn.Linear(5, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.norm(x)
        features = torch.tanh(self.base(x) + self.adapter(x))
        return [head(features).squeeze(-1) for head in self.heads]


def _adapted(**options: float) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Adapted(**options)  # type: ignore[arg-type]
    # All parameters, as most people give them: what is frozen has no gradient and no state there.
    return eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 0.01), "fairgrad")


def test_frozen_parameters_can_be_left_out_of_a_state() -> None:
    straight, stopped = _adapted(), _adapted()
    _train(straight, range(6))
    _train(stopped, range(3))
    state = stopped.state_dict(trainable_only=True)
    left = {"base.weight", "base.bias", "norm.weight", "norm.bias"}
    assert state["model"].keys() == stopped.objective.model.state_dict().keys() - left
    assert state["frozen"].keys() == left
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    resumed = _adapted()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    _train(resumed, range(3, 6))
    assert_same_state(resumed.state_dict(), straight.state_dict())
    assert stopped.state_dict().keys() == state.keys() - {"frozen"}


def test_what_was_trained_and_then_frozen_is_kept() -> None:
    mtl = _adapted()
    _train(mtl, range(1))
    mtl.objective.model.get_submodule("adapter").requires_grad_(False)
    assert {"adapter.0.weight", "adapter.1.weight"} <= mtl.state_dict(trainable_only=True)["model"].keys()


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        ({"base": 0.6}, lambda mtl: None, 'beside another frozen "base.weight"'),
        ({"rank": 3}, lambda mtl: None, r'shape \[3, 6\] as "adapter.0.weight"'),
        ({}, lambda mtl: mtl.objective.model.base.requires_grad_(True), 'lacks "base.bias", which is trained here and was'),
        ({}, lambda mtl: mtl.objective.model.add_module("more", torch.nn.Linear(1, 1)), 'lacks "more.bias", which is trained'),
        ({}, lambda mtl: mtl.objective.model.adapter.append(torch.nn.Linear(5, 5).requires_grad_(False)), "lacks adapter.2"),
        ({}, lambda mtl: delattr(mtl.objective.model, "adapter"), "it has adapter.0.weight"),
    ],
)
def test_trainable_parameters_are_loaded_into_their_own_model_only(options: dict[str, float], change: Any, said: str) -> None:
    stopped = _adapted()
    _train(stopped, range(2))
    state = stopped.state_dict(trainable_only=True)
    other = _adapted(**options)
    change(other)
    before = kept(other.state_dict())
    with pytest.raises(eq.InputError, match=said):
        other.load_state_dict(state)
    assert_same_state(other.state_dict(), before)


def test_another_precision_of_the_frozen_part_is_taken_and_another_one_if_asked_for() -> None:
    stopped = _adapted()
    _train(stopped, range(2))
    state = stopped.state_dict(trainable_only=True)
    rounded = _adapted()
    rounded.objective.model.get_submodule("base").bfloat16().float()
    rounded.load_state_dict(state)
    state["frozen"] = dict.fromkeys(state["frozen"])
    other = _adapted(base=0.6)
    other.load_state_dict(state)
    assert_same_state(other.state_dict(trainable_only=True)["model"], state["model"])
