"""Lower steps by torch's optimizers: where they lead, what is differentiated through them, what is kept and refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.bilevel import BOME, FORUM, MOML, BilevelProblem, Unrolled
from equipoise.bilevel.base import BilevelSolver
from equipoise.errors import InputError
from tests.bilevel.problems import Quadratic, small_network

STEPS = [torch.arange(first, first + 4) for first in range(4)]

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.05),
}


def test_adamw_decays_the_variables_where_its_groups_do_not_say_so() -> None:
    omega, target = torch.full((), 2.0), torch.tensor(2.0)  # no gradient: decay alone moves ω
    problem = BilevelProblem(lambda a, w, _: (w - a).square(), lambda a, w, _: w + a, (target, omega))
    lower = torch.optim.AdamW([omega], 0.1, weight_decay=0.2)
    lower.param_groups[0].pop("decoupled_weight_decay", None)  # as in torch 2.6
    MOML(problem, torch.optim.SGD([target], 0.0), lower_steps=1, lower_optimizer=lower).step()
    assert float(omega.detach()) == pytest.approx(2.0 * 0.98)


def groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    weights = list(model.parameters())
    return [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.02}]


def made(optimizer: str, memory: str = "plain", **options: Any) -> tuple[Tensor, torch.nn.Module, MOML, Tensor]:
    logits, model, problem, validation = small_network(3)
    lower = OPTIMIZERS[optimizer](groups(model))
    outer = torch.optim.SGD([logits], 0.3)
    solver = MOML(problem, outer, lower_steps=4, lower_optimizer=lower, memory=memory, **options)  # type: ignore[arg-type]
    return logits, model, solver, validation


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lower_steps_are_those_of_the_optimizer(optimizer: str, clip: float | None) -> None:
    schedule = [1.0, 0.5, 2.0, 0.0]
    logits, model, solver, validation = made(optimizer, lower_clip=clip, lower_schedule=schedule.__getitem__)
    other_logits, other, problem, _ = small_network(3)
    steps = OPTIMIZERS[optimizer](groups(other))
    rates = [group["lr"] for group in steps.param_groups]
    for _ in range(2):  # the averages go on from one outer step to the next
        for factor, batch in zip(schedule, STEPS, strict=True):
            for group, rate in zip(steps.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            steps.zero_grad()
            problem.lower_at(problem.here(), batch).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(list(other.parameters()), clip)
            steps.step()
        solver.step(STEPS, validation)
        with torch.no_grad():
            other_logits.copy_(logits)
    for one, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.detach(), theirs.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
def test_hypergradients_through_optimizers_agree_with_central_differences(
    optimizer: str, clip: float | None, memory: str
) -> None:
    logits, _, solver, validation = made(optimizer, memory, balancer="ls", lower_clip=clip)
    solver.step(STEPS, validation)  # so that there are averages to start from
    kept = copy.deepcopy(solver.state_dict())

    def value(entry: int, shift: float) -> float:
        solver.load_state_dict(copy.deepcopy(kept))
        with torch.no_grad():
            logits[entry] += shift
        return float(sum(solver.step(STEPS, validation).values()))

    shift = 1e-5
    expected = torch.tensor([(value(entry, shift) - value(entry, -shift)) / (2 * shift) for entry in (3,)])
    solver.load_state_dict(kept)
    before = logits.detach().clone()
    solver.step(STEPS, validation)
    found = (before - logits.detach())[[3]] / 0.3
    torch.testing.assert_close(found, expected.to(found), rtol=1e-5, atol=1e-9)


def test_adam_steps_from_a_vanishing_gradient_can_be_unrolled() -> None:
    alpha, omega = torch.zeros(()), torch.zeros(2)
    problem = BilevelProblem(
        lambda a, w, _: (w[0] - a).square() + 0 * w[1], lambda a, w, _: (w - 1).square().sum(), (alpha, omega)
    )
    lower = torch.optim.Adam([omega], 0.1)
    solver = MOML(problem, torch.optim.SGD([alpha], 0.1), lower_steps=2, lower_optimizer=lower)
    solver.step()
    assert bool(torch.isfinite(alpha))


@pytest.mark.parametrize("kind", [FORUM, BOME])
def test_first_order_methods_probe_the_lower_level_by_an_optimizer(kind: type[BilevelSolver]) -> None:
    quadratic = Quadratic()
    alpha, omega = quadratic.alpha, quadratic.omega
    lower = torch.optim.SGD([omega], 0.1, momentum=0.5)
    solver = kind(quadratic.problem, torch.optim.SGD([alpha, omega], 0.1), lower_steps=6, lower_optimizer=lower)
    answer = torch.nn.Parameter(omega.detach().clone())
    steps = torch.optim.SGD([answer], 0.1, momentum=0.5)
    for _ in range(6):
        steps.zero_grad()
        quadratic.lower(alpha.detach(), answer, None).backward()
        steps.step()
    gap = quadratic.lower(alpha, omega, None) - quadratic.lower(alpha, answer, None)
    solver.step()
    assert solver.last is not None
    assert solver.last.constraint == pytest.approx(float(gap.detach()))
    assert not lower.state  # a probe leaves nothing behind


def test_resumed_to_the_bit_with_averages_and_a_changed_rate() -> None:
    logits, model, solver, validation = made("adam")
    solver.step(STEPS, validation)
    solver.rule.optimizer.param_groups[0]["lr"] = 0.01  # type: ignore[attr-defined]
    state = copy.deepcopy(solver.state_dict())
    solver.step(STEPS, validation)
    again_logits, again, resumed, _ = made("adam")
    resumed.load_state_dict(state)
    resumed.step(STEPS, validation)
    assert torch.equal(logits, again_logits)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match="it lacks lower_optimizer"):
        resumed.load_state_dict({name: entry for name, entry in state.items() if name != "lower_optimizer"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give lower_lr, .* or lower_optimizer; got neither"),
        ({"lower_lr": 0.1, "lower_optimizer": "sgd"}, "got both"),
        ({"lower_optimizer": "rmsprop"}, "must be a torch.optim.SGD, Adam or AdamW"),
        ({"lower_optimizer": "others"}, "it holds 1 others"),
        ({"lower_optimizer": "few"}, 'it lacks "'),
        ({"lower_optimizer": "amsgrad"}, "amsgrad=True is not followed"),
        ({"lower_lr": 0.1, "lower_clip": 0.0}, "lower_clip must be positive"),
        ({"lower_lr": 0.1, "lower_schedule": 0.9}, "lower_schedule must be a function"),
    ],
)
def test_lower_optimizers_that_cannot_be_followed(options: dict[str, Any], says: str) -> None:
    logits, model, problem, _ = small_network()
    weights = list(model.parameters())
    known = {
        "sgd": lambda: torch.optim.SGD(weights, 0.1),
        "rmsprop": lambda: torch.optim.RMSprop(weights, 0.1),
        "others": lambda: torch.optim.SGD([*weights, logits], 0.1),
        "few": lambda: torch.optim.SGD(weights[1:], 0.1),
        "amsgrad": lambda: torch.optim.Adam(weights, 0.1, amsgrad=True),
    }
    options = {name: known[value]() if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(InputError, match=says):
        MOML(problem, torch.optim.SGD([logits], 0.1), lower_steps=1, **options)


def test_truncated_hypergradients_are_those_of_the_last_steps() -> None:
    quadratic = Quadratic()
    solver = MOML(
        quadratic.problem,
        torch.optim.SGD([quadratic.alpha], 1.0),
        lower_steps=7,
        lower_lr=0.2,
        balancer="ls",
        hypergradient=Unrolled(last=3),
    )
    before = quadratic.alpha.detach().clone()
    omega = quadratic.hypergradients(7, 0.2)[1]
    # ∂ω_7/∂α through three steps, at the ω that seven steps lead to.
    shrink = torch.eye(4).double() - 0.2 * quadratic.a
    jacobian = 0.2 * (torch.eye(4).double() + shrink + shrink @ shrink) @ quadratic.b
    expected = ((omega - quadratic.targets) @ jacobian + quadratic.slopes).sum(0)
    solver.step()
    torch.testing.assert_close(before - quadratic.alpha.detach(), expected, rtol=1e-10, atol=1e-12)
