"""Warnings of outer steps that are too long, decaying ones, and what α is worth."""

from __future__ import annotations

import copy
import math
import random
import warnings

import pytest
import torch
from torch import nn

from equipoise.bilevel import FORUM, MOML, BilevelProblem, decaying
from equipoise.bilevel.watch import Watch
from equipoise.errors import InputError
from tests.bilevel.problems import Quadratic, small_network


def said(multipliers: list[float], gaps: list[float]) -> list[str]:
    watch, owner = Watch(), Quadratic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for multiplier, gap in zip(multipliers, gaps, strict=True):
            watch.look(owner, multiplier, gap, 1.0)
    return [str(warning.message).partition(":")[0] for warning in caught]


def test_a_multiplier_in_a_cycle_of_period_two_is_told_once() -> None:
    still, met, falling = [0.02] * 60, [1e-5] * 60, [0.9**step for step in range(60)]
    cycle = [7.3 + 1.1 * (step % 2) for step in range(60)]
    assert said(cycle, still) == ["the multiplier ν goes back and forth between 7.3 and 8.4"]
    assert said(cycle, met) == said(cycle, falling) == []
    assert said([7.3 + 1.1 * (step % 3) for step in range(60)], still) == []  # no cycle of two
    assert said([7.3 + (-0.8) ** step for step in range(60)], still) == []  # dies away
    assert said([7.3 + 0.001 * (step % 2) for step in range(60)], still) == []  # matters to nobody


def test_a_constraint_that_stops_falling_is_told_once() -> None:
    fine = [1.0] * 300
    [told] = said(fine, [0.02] * 300)
    assert told == "the constraint q̃ has not fallen over 100 steps (it is 0.02, the lower level's value 1)"
    assert said(fine, [0.02 * 0.995**step for step in range(300)]) == []
    assert said(fine, [1e-4] * 300) == []


def test_noise_is_no_cycle_and_batches_that_change_hold_no_constraint() -> None:
    wandering = [10.0 + 5.0 * math.sin(step / 8.0) + 3.0 * (step % 2) for step in range(120)]
    assert said(wandering, [0.02] * 120) == []  # turns in every step, but between no two values
    draw = random.Random(7)
    watch, owner = Watch(), Quadratic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(300):
            watch.look(owner, 7.3 + 1.1 * (step % 2), 0.02, draw.gauss(1.0, 0.05))


def ridge() -> tuple[torch.Tensor, torch.Tensor, BilevelProblem]:
    """The strength of a ridge penalty: validation wants log λ = 0 where training alone would have none."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 20, generator=generator, dtype=torch.float64)
    target = inputs[:, 0] + 2.0 * torch.randn(30, generator=generator, dtype=torch.float64)
    alpha, omega = torch.tensor(-3.0, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)

    def errors(omega: torch.Tensor, rows: slice) -> torch.Tensor:
        return 0.5 * (inputs[rows] @ omega - target[rows]).square().mean()

    problem = BilevelProblem(
        lambda alpha, omega, _: errors(omega, slice(0, 15)) + 0.5 * alpha.exp() * omega.square().sum(),
        lambda alpha, omega, _: errors(omega, slice(15, 30)) + 0 * alpha,
        (alpha, omega),
    )
    return alpha, omega, problem


def test_a_solver_warns_of_its_own_steps_and_not_of_decaying_ones() -> None:
    found = []
    for decay in (False, True):
        alpha, omega, problem = ridge()
        optimizer = torch.optim.SGD([alpha, omega], 0.3)
        solver = FORUM(problem, optimizer, lower_steps=10, lower_lr=0.1)
        scheduler = decaying(optimizer, after=5, power=1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(80):
                solver.step()
                if decay:
                    scheduler.step()
        found.append([str(warning.message) for warning in caught if "ν goes back and forth" in str(warning.message)])
    assert len(found[0]) == 1
    assert not found[1]


def test_steps_that_cannot_decay() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    for options, says in (({"after": 0}, "after must be"), ({"power": 2.0}, "power must lie")):
        with pytest.raises(InputError, match=says):
            decaying(optimizer, **options)  # type: ignore[arg-type]


def test_what_alpha_is_worth_is_what_the_lower_level_makes_of_it() -> None:
    alpha, omega, problem = ridge()
    solver = FORUM(problem, torch.optim.SGD([alpha, omega], 0.05), lower_steps=10, lower_lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(80):
            own = solver.step()["objective0"]
    before = copy.deepcopy(solver.state_dict())
    worth = solver.retrained(None, None, steps=300, start=torch.zeros(20, dtype=torch.float64))["objective0"]
    answer = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    for _ in range(300):
        (slope,) = torch.autograd.grad(problem._lower(alpha.detach(), answer, None), answer)
        answer = (answer - 0.1 * slope).detach().requires_grad_()
    assert float(worth) == pytest.approx(float(problem._upper(alpha.detach(), answer.detach(), None)), rel=1e-9)
    assert float(worth) > 1.02 * float(own)  # ω itself has been fitted to the upper level
    after = solver.state_dict()
    assert torch.equal(before["upper"][0], after["upper"][0])
    assert torch.equal(before["lower"][0], after["lower"][0])
    assert float(solver.retrained(None, None, steps=1)["objective0"]) == pytest.approx(float(own), rel=0.2)  # the present ω


def test_retraining_a_model_made_anew_leaves_no_trace() -> None:
    logits, model, problem, validation = small_network(dropout=0.5)
    solver = MOML(problem, torch.optim.SGD([logits], 0.1), lower_steps=1, lower_lr=0.1)
    solver.step([torch.arange(8)], validation)
    fresh = small_network(seed=5)[1]
    kept = [tensor.detach().clone() for tensor in (*model.state_dict().values(), *fresh.state_dict().values())]
    state = torch.get_rng_state()
    first = solver.retrained([torch.arange(8)] * 3, validation, steps=3, start=fresh)
    again = solver.retrained([torch.arange(8)] * 3, validation, steps=3, start=fresh)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    now = (*model.state_dict().values(), *fresh.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    with pytest.raises(InputError, match="start holds other tensors"):
        solver.retrained([torch.arange(8)], validation, steps=1, start=nn.Linear(5, 2))
    with pytest.raises(InputError, match="steps must be a whole number"):
        solver.retrained([torch.arange(8)], validation, steps=0)


def test_retraining_draws_from_no_generator_of_the_callers_and_lowers_a_scale_by_itself() -> None:
    alpha, omega = torch.tensor(3.0), torch.tensor(1e10)
    problem = BilevelProblem(lambda a, w, _: (w - a).square(), lambda a, w, _: (w - 1).square(), (alpha, omega))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    optimizer = torch.optim.SGD([alpha, omega], 1e-3)
    solver = FORUM(problem, optimizer, lower_steps=1, lower_lr=0.5, scaler=scaler)
    loader = torch.utils.data.DataLoader(list(range(10)), batch_size=2, shuffle=True)
    state = torch.get_rng_state()
    assert float(solver.retrained(loader, None, steps=3)["objective0"]) == 4.0
    assert torch.equal(state, torch.get_rng_state())
    assert scaler.get_scale() == 2.0**100


def test_retraining_begins_the_schedule_anew_after_every_t_steps() -> None:
    alpha, omega = torch.tensor(3.0), torch.tensor(0.0)
    problem = BilevelProblem(lambda a, w, _: 0.5 * (w - a).square(), lambda a, w, _: (w - a).square(), (alpha, omega))
    schedule = [1.0, 0.5]
    lower = torch.optim.SGD([omega], 0.1, momentum=0.9)
    options = {"lower_steps": 2, "lower_optimizer": lower, "lower_schedule": schedule.__getitem__}
    solver = MOML(problem, torch.optim.SGD([alpha], 0.0), **options)  # type: ignore[arg-type]
    worth = float(solver.retrained(None, None, steps=5)["objective0"])
    for _ in range(2):
        solver.step()  # the averages go on there, too
    gap, mean = float(omega.detach() - alpha.detach()), float(lower.state[omega]["momentum_buffer"])
    assert worth == pytest.approx((gap - 0.1 * (0.9 * mean + gap)) ** 2, rel=1e-5)


def test_micro_batches_that_cannot_be_use_up_no_lower_batch() -> None:
    quadratic = Quadratic()
    options = {"lower_steps": 1, "lower_lr": 0.1, "accumulate": 2}
    solver = MOML(quadratic.problem, torch.optim.SGD([quadratic.alpha], 0.1), **options)  # type: ignore[arg-type]
    batches = iter(range(4))
    for call in (lambda: solver.step(batches, 5), lambda: solver.retrained(batches, 5, steps=1)):
        with pytest.raises(InputError, match="a sequence of micro-batches"):
            call()
    assert next(batches) == 0
