"""Bad input to NORMAL gets one clear line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.nets import (
    NORMAL,
    FirstOrder,
    FixedPositions,
    HeavyBall,
    LearnedPositions,
    PositivePositions,
    Solver,
    TaskFlow,
    pointwise_map,
    position_groups,
    vector_map,
)
from tests.nets.flows import batch, losses, model

LAYER = nn.Linear(3, 3)
NARROW = nn.Linear(3, 1)


def flowing(dynamics: Any) -> Any:
    return TaskFlow(dynamics, LearnedPositions(["a"]))(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Solver("rk45"), 'there is no solver "rk45". Did you mean "rk4"?'),
        (lambda: Solver(step_size=0), "step_size must be a finite number above 0; got 0"),
        (lambda: Solver(step_size=math.inf), "step_size must be a finite number above 0"),
        (lambda: Solver(rtol=-1.0), "rtol must be"),
        (lambda: Solver(options={"step_size": 1}), "sets the option step_size itself"),
        (lambda: LearnedPositions([]), "there are no tasks"),
        (lambda: LearnedPositions("ab"), "must be a sequence of names"),
        (lambda: LearnedPositions(["a", "a"]), 'the task "a" is named twice'),
        (lambda: LearnedPositions([1]), "must be named by strings; got 1"),
        (lambda: LearnedPositions(["a"], math.nan), 'the position of task "a" must be a finite number; got nan'),
        (lambda: LearnedPositions(["a"], "1"), "must be a finite number"),
        (lambda: LearnedPositions(["a", "b"], [1.0]), "1 positions are given for 2 tasks"),
        (lambda: LearnedPositions(["a", "b"], {"a": 1.0}), 'no position is given for task "b"'),
        (lambda: LearnedPositions(["a"], {"a": 1.0, "b": 2.0}), 'there is no position for task "b"'),
        (lambda: PositivePositions(["a"], 0.0), "must start above 0"),
        (lambda: HeavyBall(LAYER, 3), "function must be a torch.nn.Module; got int"),
        (lambda: HeavyBall(LAYER, LAYER, damping=1.0), "damping must lie above 0 and below 1"),
        (lambda: HeavyBall(LAYER, LAYER, xi=math.inf), "xi must be a finite number"),
        (lambda: FirstOrder(None), "function must be a torch.nn.Module; got NoneType"),
        (lambda: vector_map(0), "size must be a whole number from 1 on; got 0"),
        (lambda: pointwise_map(3, 0.5), "hidden must be a whole number from 1 on; got 0.5"),
        (lambda: TaskFlow(LAYER, LearnedPositions(["a"])), "dynamics must be a Dynamics; got Linear"),
        (lambda: TaskFlow(FirstOrder(LAYER), ["a"]), "positions must be a Positions; got list"),
        (lambda: TaskFlow(FirstOrder(LAYER), LearnedPositions(["a"]), "euler"), "solver must be a Solver"),
        (lambda: TaskFlow.for_vectors(["a"], 3, first_order=True, xi=1.0), "xi belongs to the second-order flow"),
        (lambda: TaskFlow.for_vectors(["a"], 3, positions=LearnedPositions(["b"])), "the positions are of b; the tasks are a"),
        (lambda: TaskFlow.for_vectors(["a"], 3)(torch.zeros(2, 3), ["b"]), 'there is no position for task "b"'),
        (lambda: TaskFlow.for_vectors(["a"], 3)(torch.zeros(2, 3).long()), "features must be a floating-point tensor"),
        (lambda: TaskFlow.for_vectors(["a"], 3)([1.0]), "features must be a floating-point tensor; got list"),
        (lambda: flowing(FirstOrder(NARROW)), "the ODE function must keep"),
        (lambda: flowing(HeavyBall(NARROW, LAYER)), "the initial velocity"),
        (lambda: NORMAL(lambda x: x, TaskFlow.for_vectors(["a"], 3), {"a": LAYER}), "encoder must be a torch.nn.Module"),
        (lambda: NORMAL(LAYER, LAYER, {"a": LAYER}), "flow must be a TaskFlow"),
        (lambda: NORMAL(LAYER, TaskFlow.for_vectors(["a"], 3), [LAYER]), "heads must be a mapping"),
        (lambda: NORMAL(LAYER, TaskFlow.for_vectors(["depth"], 3), {"dept": LAYER}), 'Did you mean "depth"?'),
        (lambda: NORMAL(LAYER, TaskFlow.for_vectors(["a", "b"], 3), {"a": LAYER}), 'there is no head for task "b"'),
        (lambda: NORMAL(LAYER, TaskFlow.for_vectors(["a"], 3), {"a": 3}), 'the head of task "a" must be a torch.nn.Module'),
        (lambda: NORMAL(LAYER, TaskFlow.for_vectors(["a.b"], 3), {"a.b": LAYER}), "rename the task"),
        (lambda: position_groups(LAYER, 0.1), "the model has no task positions"),
        (lambda: position_groups(model(), 0.0), "lr must be a finite step size above 0; got 0.0"),
        (lambda: position_groups([], 0.1), "model must be a torch.nn.Module; got list"),
    ],
)
def test_one_clear_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(eq.InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_tasks_are_told_apart() -> None:
    with pytest.raises(eq.errors.UnknownTaskError, match='Did you mean "a"'):
        model()(batch()[0], tasks=["A"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_position_that_went_wrong(value: float) -> None:
    network = model()
    with torch.no_grad():
        network.flow.positions.learned[1].fill_(value)
    with pytest.raises(eq.InputError, match=f'the position of task "b" is {value}'):
        network(batch()[0])


def test_a_position_that_ran_away_does_not_hang() -> None:
    network = model()
    with torch.no_grad():
        network.flow.positions.learned[1].fill_(-1e6)
    with pytest.raises(eq.InputError, match="a position is 1e\\+06 away from 0, more than 10,000 steps"):
        network(batch()[0])


def test_a_solver_that_gives_up() -> None:
    network = model(solver=Solver("dopri5", options={"max_num_steps": 2}))
    with pytest.raises(eq.InputError, match=r"dopri5 cannot integrate the flow to .*max_num_steps exceeded"):
        network(batch()[0])


def test_features_that_are_not_finite_are_the_losses_affair() -> None:
    network = model()
    before = [parameter.clone() for parameter in network.parameters()]
    mtl = eq.MultiTaskOptimizer(eq.Objective(network, losses), torch.optim.SGD(network.parameters(), 0.1), eq.FairGrad())
    inputs, targets = batch()
    inputs[0, 0] = math.nan
    with pytest.raises(eq.NonFiniteError, match="loss"):
        mtl.step((inputs, targets))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_without_torchdiffeq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    network = model(solver=Solver("rk4"))  # builds without
    with pytest.raises(eq.errors.MissingExtraError, match=r"equipoise\[normal\]"):
        network(batch()[0])


def test_what_it_says_of_itself() -> None:
    assert "a=0.7, b=1.3, c=-0.4" in repr(model().flow)
    assert FixedPositions(["a"], 2.0).values() == {"a": 2.0}
