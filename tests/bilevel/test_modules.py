"""Modules as variables: buffers, dropout, frozen parameters, parameters of a model given as tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, BilevelSolver, MoCoBilevel, endless
from tests.bilevel.problems import small_network
from tests.states import assert_same_state

TRAINING = [torch.tensor(rows) for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [0, 2, 4, 6])]


def solver_of(kind: type[BilevelSolver], seed: int = 0, dropout: float = 0.0, **options: Any) -> tuple[Any, ...]:
    logits, model, problem, validation = small_network(seed, dropout)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam([logits], 0.05)]
    if kind.moves_both:
        optimizers.append(torch.optim.SGD(model.parameters(), 0.05, momentum=0.5))
    solver = kind(problem, optimizers, lower_steps=3, lower_lr=0.1, **options)
    return logits, model, solver, validation


@pytest.mark.parametrize("kind", [FORUM, BOME, MOML, MoCoBilevel])
@pytest.mark.parametrize("start", ["warm", "cold"])
def test_resumed_to_the_bit(kind: type[BilevelSolver], start: str) -> None:
    def run(steps: int, state: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
        logits, model, solver, validation = solver_of(kind, start=start, dropout=0.3)
        if state is not None:
            solver.load_state_dict(state)
        for step in range(solver.steps, steps):
            torch.manual_seed(step)
            solver.step(TRAINING, validation)
        return logits, model.state_dict(), solver.state_dict()

    straight, model, _ = run(6)
    _, _, halfway = run(3)
    resumed, resumed_model, _ = run(6, halfway)
    assert torch.equal(straight, resumed)
    assert all(torch.equal(model[name], resumed_model[name]) for name in model)


@pytest.mark.parametrize(("kind", "evaluations"), [(FORUM, 1), (MOML, 3)])
def test_statistics_count_the_evaluations_that_lead_to_the_model(kind: type[BilevelSolver], evaluations: int) -> None:
    # FORUM: f at the present point. MOML: the T steps that ω takes. The upper level leaves no trace.
    _, model, solver, validation = solver_of(kind)
    solver.step(TRAINING, validation)
    assert int(model[1].num_batches_tracked) == evaluations


@pytest.mark.parametrize("kind", [FORUM, MOML])
def test_frozen_parameters_stay_and_get_no_gradient(kind: type[BilevelSolver]) -> None:
    logits, model, problem, validation = small_network()
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    problem = BilevelProblem(problem._lower, problem._upper, (logits, model))
    held = [logits, *[p for p in model.parameters() if p.requires_grad]] if kind.moves_both else [logits]
    solver = kind(problem, torch.optim.SGD(held, 0.1), lower_steps=3, lower_lr=0.1)
    solver.step(TRAINING, validation)
    assert torch.equal(model[0].weight, frozen)
    assert model[0].weight.grad is None
    assert len(problem.lower_variables) == 4


@pytest.mark.parametrize("kind", [FORUM, MOML])
def test_variables_given_as_parameters_of_a_model_are_replaced_in_it(kind: type[BilevelSolver]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    inputs, targets = torch.randn(6, 3), torch.randn(6, 2)
    upper = {"encoder": model[0].weight}
    lower = {"head": model[2].weight, "bias": model[2].bias}
    others = model[0].bias

    def loss(alpha: Any, omega: Any, batch: Tensor) -> Tensor:
        return (model(inputs[batch]) - targets[batch]).square().mean(0)

    problem = BilevelProblem(
        lambda alpha, omega, batch: loss(alpha, omega, batch).sum() + 0.1 * omega["head"].square().sum(),
        loss,
        (upper, lower),
        model=model,
    )
    held = [*upper.values(), *lower.values()] if kind.moves_both else [*upper.values()]
    solver = kind(problem, torch.optim.SGD(held, 0.1), lower_steps=4, lower_lr=0.1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    values = [solver.step(endless([torch.arange(6)]), torch.arange(6)) for _ in range(20)]
    after = dict(model.named_parameters())
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["2.weight"], before["2.weight"])
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert others.grad is None
    assert sum(values[-1].values()) < sum(values[0].values())


def test_both_levels_may_be_modules_of_one_model() -> None:
    torch.manual_seed(0)
    encoder, head = nn.Linear(3, 4), nn.Linear(4, 2)
    inputs, targets = torch.randn(8, 3), torch.randn(8, 2)
    problem = BilevelProblem(
        lambda encoder, head, batch: (head(encoder(inputs[:4])) - targets[:4]).square().mean(),
        lambda encoder, head, batch: (head(encoder(inputs[4:])) - targets[4:]).square().mean(0),
        (encoder, head),
    )
    solver = MOML(problem, torch.optim.SGD(encoder.parameters(), 0.2), lower_steps=5, lower_lr=0.1, start="cold")
    values = [sum(solver.step().values()) for _ in range(30)]
    assert values[-1] < 0.8 * values[0]


def test_dropout_masks_are_the_same_on_both_sides_of_the_constraint() -> None:
    # With ω̃ = ω the two sides are the same function, so the constraint vanishes exactly if the masks agree.
    logits, model, problem, validation = small_network(dropout=0.5)
    solver = FORUM(problem, torch.optim.SGD([logits, *model.parameters()], 0.1), lower_steps=1, lower_lr=1e-300)
    solver.step(TRAINING, validation)
    assert solver.last is not None
    assert solver.last.constraint == 0.0


@pytest.mark.parametrize("kind", [FORUM, BOME, BVFIM])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("careful", [False, True])
def test_sharing_the_first_gradient_changes_nothing(kind: type[BilevelSolver], dropout: float, careful: bool) -> None:
    def run(shared: bool) -> tuple[list[Tensor], dict[str, Any], Any, int]:
        torch.manual_seed(7)
        logits, model, solver, validation = solver_of(kind, dropout=dropout)
        solver.careful = careful
        if not shared:
            solver._draws = True
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        model.register_forward_hook(count)
        for _ in range(3):
            solver.step([TRAINING[0]] * 3, validation)
        return [logits, *model.parameters(), *model.buffers(), torch.rand(3)], solver.state_dict(), solver.last, calls

    (first, state, report, calls), (second, other, other_report, other_calls) = run(True), run(False)
    assert_same_state(first, second)
    assert_same_state(state, other)
    assert_same_state(report, other_report)
    # One evaluation less per step; with dropout, one more in the first, which finds out about it.
    assert calls - other_calls == (1 if dropout else -3)


def test_the_first_gradient_is_shared_where_the_batch_is_the_same_and_the_start_warm() -> None:
    def evaluations(batches: list[Tensor], **options: Any) -> int:
        _, model, solver, validation = solver_of(FORUM, **options)
        calls = []
        model.register_forward_hook(lambda *_: calls.append(1))
        solver.step(batches, validation)
        return len(calls)

    assert evaluations([TRAINING[0]] * 3) == 5  # T, F, and f at ω̃
    assert evaluations([TRAINING[0], TRAINING[1], TRAINING[0]]) == 5
    assert evaluations(TRAINING) == 6
    assert evaluations([TRAINING[0]] * 3, start="cold") == 6
    assert evaluations([TRAINING[0]] * 3, constraint_batches=2) == 8
