"""Bad input: every refusal says what was given and leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, BilevelSolver, MoCoBilevel, endless
from equipoise.errors import InputError, NonFiniteError, UnknownTaskError
from tests.bilevel.problems import small_network, synthetic
from tests.states import assert_same_state, kept

ALL = [FORUM, BOME, BVFIM, MOML, MoCoBilevel]


def built(kind: type[BilevelSolver], lower: Callable[..., Any], upper: Callable[..., Any], **options: Any) -> Any:
    alpha, omega = torch.tensor([1.0]), torch.tensor([2.0, 3.0])
    problem = BilevelProblem(lower, upper, (alpha, omega))
    held = [alpha, omega] if kind.moves_both else [alpha]
    solver = kind(problem, torch.optim.SGD(held, 0.1, momentum=0.9), **({"lower_steps": 3, "lower_lr": 0.1} | options))
    return alpha, omega, solver


def good_lower(alpha: Tensor, omega: Tensor, batch: Any) -> Tensor:
    return (omega - alpha).square().sum()


def good_upper(alpha: Tensor, omega: Tensor, batch: Any) -> dict[str, Tensor]:
    return {"one": (omega - 1).square().sum(), "two": (omega - 2).square().sum()}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("lower", "says"),
    [
        (lambda alpha, omega, batch: alpha.square().sum(), "no gradient with respect to the lower-level variables"),
        (lambda alpha, omega, batch: (omega.detach() - alpha).square().sum(), "no gradient with respect to the lower"),
        (lambda alpha, omega, batch: omega - alpha, "must return one real scalar"),
        (lambda alpha, omega, batch: 1.0, "must return one real scalar"),
    ],
)
def test_lower_level_without_a_gradient(kind: type[BilevelSolver], lower: Callable[..., Any], says: str) -> None:
    alpha, omega, solver = built(kind, lower, good_upper)
    with pytest.raises(InputError, match=says):
        solver.step()
    assert alpha.tolist() == [1.0]
    assert omega.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("kind", ALL)
def test_upper_objective_that_does_not_depend_on_the_upper_variables(kind: type[BilevelSolver]) -> None:
    alpha, _, solver = built(kind, lambda alpha, omega, batch: (omega - 5).square().sum(), good_upper)
    with pytest.raises(InputError, match=r'"(one|mean)" does not depend on the upper-level variables'):
        solver.step()
    assert alpha.tolist() == [1.0]


@pytest.mark.parametrize("kind", [FORUM, MOML, MoCoBilevel])
def test_one_of_the_upper_objectives_does_not_depend_on_the_upper_variables(kind: type[BilevelSolver]) -> None:
    def upper(alpha: Tensor, omega: Tensor, batch: Any) -> dict[str, Tensor]:
        return {"fine": alpha.square().sum(), "idle": (omega - 1).square().sum()}

    _, _, solver = built(kind, lambda alpha, omega, batch: (omega - 5).square().sum(), upper)
    with pytest.raises(InputError, match='"idle" does not depend on the upper-level variables'):
        solver.step()


@pytest.mark.parametrize("kind", ALL)
def test_upper_objective_that_depends_on_nothing(kind: type[BilevelSolver]) -> None:
    def upper(alpha: Tensor, omega: Tensor, batch: Any) -> dict[str, Tensor]:
        return {"fine": omega.sum(), "cut": omega.detach().sum()}

    _, _, solver = built(kind, good_lower, upper)
    with pytest.raises(InputError, match='"cut" depends on none of the variables'):
        solver.step()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_no_lower_steps(kind: type[BilevelSolver], steps: Any) -> None:
    with pytest.raises(InputError, match="lower_steps must be a whole number, at least 1"):
        built(kind, good_lower, good_upper, lower_steps=steps)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("where", ["lower value", "upper value", "lower step", "gradient"])
def test_a_step_that_leaves_the_numbers_changes_nothing(kind: type[BilevelSolver], where: str) -> None:
    calls = {"lower": 0}

    def lower(alpha: Tensor, omega: Tensor, batch: Any) -> Tensor:
        calls["lower"] += 1
        value = good_lower(alpha, omega, batch)
        if batch == "bad":
            value = {
                "lower value": value * float("nan"),
                "lower step": value + 1e38 * omega.sum() ** 3,
                "upper value": value,
                "gradient": value,
            }[where]
        return value

    def upper(alpha: Tensor, omega: Tensor, batch: Any) -> dict[str, Tensor]:
        named = good_upper(alpha, omega, batch)
        if batch == "bad" and where == "upper value":
            named["two"] = named["two"] / 0.0
        if batch == "bad" and where == "gradient":
            # 0/0 in the derivative of a square root at zero.
            named["two"] = named["two"] + (omega * 0.0 + alpha * 0.0).sum().sqrt()
        return named

    alpha, omega, solver = built(kind, lower, upper)
    for _ in range(2):
        solver.step(["good"] * 3, "good")
    before = kept(solver.state_dict())
    with pytest.raises(NonFiniteError) as caught:
        solver.step(["bad"] * 3, "bad")
    names = {"lower value": "lower", "lower step": "lower", "upper value": '"two"', "gradient": "upper"}
    assert names[where] in str(caught.value)
    assert caught.value.step == 2
    assert_same_state(solver.state_dict(), before)
    assert solver.steps == 2
    assert alpha.grad is None
    assert omega.grad is None
    solver.step(["good"] * 3, "good")


@pytest.mark.parametrize("kind", [FORUM, MOML])
def test_statistics_are_as_before_a_failed_step(kind: type[BilevelSolver]) -> None:
    logits, model, problem, validation = small_network()
    held = [logits, *model.parameters()] if kind.moves_both else [logits]
    solver = kind(problem, torch.optim.SGD(held, 0.1), lower_steps=2, lower_lr=1e300)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="lower level"):
        solver.step([torch.arange(4)] * 2, validation)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ALL)
def test_batches_that_end(kind: type[BilevelSolver]) -> None:
    alpha, _, solver = built(kind, good_lower, good_upper)
    with pytest.raises(InputError, match="ended after 2 of the 3 batches"):
        solver.step(iter([1, 2]), 0)
    with pytest.raises(InputError, match="ended after 0 of the 3"):
        solver.step([], 0)
    with pytest.raises(InputError, match="iterable of batches"):
        solver.step(7, 0)
    assert alpha.tolist() == [1.0]


def test_batches_are_taken_in_turn_and_lists_begin_anew() -> None:
    seen: list[Any] = []

    def lower(alpha: Tensor, omega: Tensor, batch: Any) -> Tensor:
        seen.append(batch)
        return good_lower(alpha, omega, batch)

    _, _, solver = built(MOML, lower, good_upper)
    stream = endless([0, 1])
    solver.step(stream, None)
    solver.step(stream, None)
    solver.step([7, 8, 9, 10], None)
    assert seen == [0, 1, 0, 1, 0, 1, 7, 8, 9]


def test_endless_refuses_what_ends() -> None:
    with pytest.raises(InputError, match="iterator, which ends for good"):
        endless(iter([1]))
    with pytest.raises(InputError, match="is empty"):
        next(endless([]))


def test_problems_that_are_none() -> None:
    alpha, omega = torch.tensor(1.0), torch.tensor(2.0)
    with pytest.raises(InputError, match="lower must be a function"):
        BilevelProblem(None, good_upper, (alpha, omega))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be a pair"):
        BilevelProblem(good_lower, good_upper, (alpha,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="variable of both levels"):
        BilevelProblem(good_lower, good_upper, (alpha, {"also": alpha}))
    with pytest.raises(InputError, match="result of a computation"):
        BilevelProblem(good_lower, good_upper, (alpha, omega.requires_grad_() * 2))
    with pytest.raises(InputError, match="floating-point"):
        BilevelProblem(good_lower, good_upper, (torch.tensor(1), omega))
    with pytest.raises(InputError, match="no lower-level variables: the mapping is empty"):
        BilevelProblem(good_lower, good_upper, (alpha, {}))
    with pytest.raises(InputError, match="no parameter that requires gradients"):
        BilevelProblem(good_lower, good_upper, (alpha, nn.Flatten()))
    with pytest.raises(InputError, match="a module, a tensor or a mapping"):
        BilevelProblem(good_lower, good_upper, (alpha, [omega]))  # type: ignore[arg-type]


def test_objectives_keep_their_names() -> None:
    names = iter([{"one": 1.0, "two": 2.0}, {"one": 1.0}])

    def upper(alpha: Tensor, omega: Tensor, batch: Any) -> dict[str, Tensor]:
        return {name: value * omega.sum() for name, value in next(names).items()}

    _, _, solver = built(MOML, good_lower, upper)
    solver.step()
    with pytest.raises(UnknownTaskError, match="expected one, two"):
        solver.step()


def test_optimizers_that_do_not_fit() -> None:
    alpha, omega, problem = synthetic(0.0, (0.0, 3.0))
    options: dict[str, Any] = {"lower_steps": 2, "lower_lr": 0.1}
    with pytest.raises(InputError, match="no optimizer holds the lower-level variable"):
        FORUM(problem, torch.optim.SGD([alpha], 0.1), **options)
    with pytest.raises(InputError, match="no optimizer holds the upper-level variable"):
        MOML(problem, torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1), **options)
    with pytest.raises(InputError, match="moves them itself"):
        MOML(problem, torch.optim.SGD([alpha, omega], 0.1), **options)
    with pytest.raises(InputError, match="hold the same tensor"):
        FORUM(problem, [torch.optim.SGD([alpha, omega], 0.1), torch.optim.SGD([omega], 0.1)], **options)
    with pytest.raises(InputError, match="must be a torch optimizer"):
        MOML(problem, "adam", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="LBFGS"):
        MOML(problem, torch.optim.LBFGS([alpha]), **options)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (FORUM, {"rho": -1.0}, "rho"),
        (FORUM, {"averaging": float("inf")}, "averaging"),
        (FORUM, {"lower_lr": 0.0}, "lower_lr"),
        (FORUM, {"start": "hot"}, "warm"),
        (FORUM, {"constraint_batches": 4}, "constraint_batches"),
        (FORUM, {"constraint_batches": 1.5}, "constraint_batches must be a whole number"),
        (BOME, {"barrier": "wall"}, "barrier"),
        (BVFIM, {"margin": 0.0}, "margin"),
        (BVFIM, {"decay": 0.5}, "decay"),
        (MOML, {"memory": "none"}, "memory"),
        (MOML, {"balancer": "famo"}, "needs more than"),
        (MOML, {"balancer": "nonsense"}, "nonsense"),
        (MoCoBilevel, {"beta": 2.0}, "beta"),
    ],
)
def test_options_out_of_range(kind: type[BilevelSolver], options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        built(kind, good_lower, good_upper, **options)


def test_states_that_do_not_fit() -> None:
    _, _, forum = built(FORUM, good_lower, good_upper)
    _, _, moml = built(MOML, good_lower, good_upper)
    _, _, cold = built(MOML, good_lower, good_upper, start="cold")
    with pytest.raises(InputError, match="not that of a MOML"):
        moml.load_state_dict(forum.state_dict())
    with pytest.raises(InputError, match="warm"):
        cold.load_state_dict(moml.state_dict())
    alpha, _, problem = synthetic(0.0, (0.0, 3.0))
    other = MOML(problem, torch.optim.SGD([alpha], 0.1), lower_steps=1, lower_lr=0.1)
    with pytest.raises(InputError, match="other upper-level variables"):
        other.load_state_dict(moml.state_dict())


def test_the_room_is_at_the_top() -> None:
    assert eq.bilevel.FORUM is FORUM
