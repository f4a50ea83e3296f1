"""Stopping and going on: bit-identical parameters, whatever the balancer remembers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import equipoise as eq
from tests.problems import Heads, batch, optimizer_of, parameters_of
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
