"""An error about a number names the tasks whose number it is, and no others, whatever a balancer adds up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests.faults.test_scales import BY_LOSSES
from tests.states import assert_same_state, kept

TASKS = ("a", "b", "c", "d")


def objective_of(values: dict[str, float]) -> tuple[nn.Module, eq.Objective]:
    """Losses of the values given, all of which have ordinary gradients."""
    model = nn.Linear(2, 1)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        out = model(batch).mean()
        return {name: value + place * (out - out.detach()) for place, (name, value) in enumerate(values.items(), 1)}

    return model, eq.Objective(model, losses)


# Options with which a negative loss has no weight.
NEEDS_POSITIVE: dict[str, dict[str, Any]] = {
    "db-mtl": {},
    "famo": {},
    "gls": {},
    "go4align": {},
    "gradnorm": {},
    "igb": {},
    "ldc-mtl": {"normalize": "log"},
    "si": {},
    "stch": {"formulation": "released"},
}


@pytest.mark.parametrize("bad", [("b",), ("a", "c")], ids=str)
@pytest.mark.parametrize("trained", [0, 2], ids=["first step", "later"])
@pytest.mark.parametrize("name", NEEDS_POSITIVE)
def test_negative_losses_are_named(name: str, trained: int, bad: tuple[str, ...]) -> None:
    values = dict.fromkeys(TASKS, 2.0)
    model, objective = objective_of(values)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 1e-3), eq.balancer(name, **NEEDS_POSITIVE[name]))
    for _ in range(trained):
        mtl.step(torch.ones(3, 2))
    before = kept((mtl.balancer.state_dict(), model.state_dict(), mtl.optimizer.state_dict()))
    values.update(dict.fromkeys(bad, -1.0))
    with pytest.raises(eq.NonFiniteError) as caught:
        mtl.step(torch.ones(3, 2))
    assert caught.value.tasks == bad
    assert_same_state((mtl.balancer.state_dict(), model.state_dict(), mtl.optimizer.state_dict()), before)


def test_every_method_of_losses_is_here_or_takes_negative_ones() -> None:
    values = {"a": 2.0, "b": -1.0, "c": 1.0, "d": 3.0}
    for name in BY_LOSSES:
        if name not in NEEDS_POSITIVE:
            model, objective = objective_of(values)
            eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 1e-3), eq.balancer(name)).step(
                torch.ones(3, 2)
            )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [info.name for info in eq.methods() if info.name not in ("rotograd", "bayesagg-mtl")])
def test_losses_that_are_not_finite_are_named(name: str, value: float) -> None:
    values = {"a": 2.0, "b": value, "c": 1.0, "d": value}
    model, objective = objective_of(values)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 1e-3), eq.balancer(name))
    further = {"further": (torch.ones(3, 2), torch.ones(3, 2))} if name in ("modo", "sdmgrad") else {}
    with pytest.raises(eq.NonFiniteError) as caught:
        mtl.step(torch.ones(3, 2), **further)
    assert caught.value.tasks == ("b", "d")


def test_a_weight_beyond_all_numbers_is_its_task_s() -> None:
    values = {"a": 1e305, "b": 1.0, "c": 1e-12, "d": 2.0}  # c weighs about 1e305 · 1e8
    model, objective = objective_of(values)
    model.double()
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 1e-3), eq.GO4Align())
    with pytest.raises(eq.NonFiniteError) as caught:
        mtl.step(torch.ones(3, 2, dtype=torch.float64))
    assert "c" in caught.value.tasks
    assert "a" not in caught.value.tasks


def test_the_double_loop_names_what_diverged() -> None:
    model = nn.Linear(1, 1)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        out = model(batch).mean()
        return {"calm": out * 0 + 1, "wild": (out**4).exp()}

    balancer = eq.LDCMTL(double_loop=True, inner_lr=1e3, inner_steps=3, normalize="none")
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 1e-3), balancer)
    with pytest.raises(eq.NonFiniteError, match="diverged") as caught:
        mtl.step(torch.ones(3, 1))
    assert "wild" in caught.value.tasks
    assert caught.value.step == 0


def test_an_upper_objective_without_a_weight_is_named() -> None:
    alpha, omega = torch.tensor(0.5), torch.tensor(0.5)
    problem = eq.bilevel.BilevelProblem(
        lower=lambda alpha, omega, batch: (omega - alpha).square(),
        upper=lambda alpha, omega, batch: {"one": omega.square() + 1, "two": omega.square() - 5},
        variables=(alpha, omega),
    )
    solver = eq.bilevel.MOML(problem, torch.optim.SGD([alpha], 0.1), balancer="si", lower_steps=2, lower_lr=0.1)
    with pytest.raises(eq.NonFiniteError, match="two") as caught:
        solver.step()
    assert caught.value.tasks == ("two",)
