"""What users' modules and functions do that is easily overlooked: ties, reassigned buffers, graphs and tensors from outside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, BilevelSolver, MoCoBilevel
from equipoise.errors import InputError, NonFiniteError
from tests.states import assert_same_state, kept

ALL = [FORUM, BOME, BVFIM, MOML, MoCoBilevel]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)


def weighted(forward: Callable[[Any, Tensor], Tensor], lower: Any, **options: Any) -> tuple[Tensor, BilevelProblem]:
    """A weight a sample above, squared errors of ``forward(ω, x)`` on both levels."""
    x, y = data()
    logits = torch.zeros(8)
    return logits, BilevelProblem(
        lambda logits, omega, batch: (logits.sigmoid() * (forward(omega, x) - y).square().mean(1)).mean(),
        lambda logits, omega, batch: (forward(omega, x) - y).square().mean(0),
        (logits, lower),
        **options,
    )


def solver_of(kind: type[BilevelSolver], logits: Tensor, problem: BilevelProblem, **options: Any) -> BilevelSolver:
    held = [logits, *problem.lower_variables.tensors] if kind.moves_both else [logits]
    return kind(problem, torch.optim.SGD(held, 0.1, momentum=0.9), lower_steps=2, lower_lr=0.1, **options)


class Tied(nn.Module):
    """Two layers with one weight, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.first(x).tanh()).tanh())
        return out


@pytest.mark.parametrize("kind", [FORUM, MOML])
def test_constants_of_a_model_may_be_tied(kind: type[BilevelSolver]) -> None:
    model = Tied()
    logits, problem = weighted(lambda omega, x: model(x), dict(model.head.named_parameters()), model=model)
    before = model.head.weight.detach().clone()
    solver_of(kind, logits, problem).step()
    assert not torch.equal(before, model.head.weight)
    assert model.first.weight.grad is None


class Centred(nn.Module):
    """Subtracts a running mean that is reassigned in every call, not written into."""

    center: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("center", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        self.center = 0.5 * self.center + 0.5 * out.detach().mean(0)
        return out - self.center


@pytest.mark.parametrize("memory", [None, "plain", "checkpointed"])
def test_buffers_that_are_reassigned_are_kept(memory: str | None) -> None:
    torch.manual_seed(0)
    model = Centred()
    before, (x, _) = copy.deepcopy(model), data()
    logits, problem = weighted(lambda omega, x: omega(x), model)
    buffer = model.center
    if memory is None:
        solver_of(FORUM, logits, problem).step()
        torch.testing.assert_close(model.center, 0.5 * before.layer(x).mean(0).detach())  # one evaluation, at the old ω
    else:
        solver_of(MOML, logits, problem, memory=memory).step()
        other_logits, other = weighted(lambda omega, x: omega(x), before)
        solver_of(MOML, other_logits, other).step()
        assert not torch.equal(model.center, torch.zeros(2))
        torch.testing.assert_close(model.center, before.center)
        torch.testing.assert_close(logits, other_logits)
    assert model.center is buffer


@pytest.mark.parametrize("kind", [FORUM, MOML])
def test_objectives_given_as_callables_are_evaluated_at_the_point_in_question(kind: type[BilevelSolver]) -> None:
    def run(late: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        torch.manual_seed(0)
        alpha, module = torch.ones(1, 3), nn.Linear(3, 1, bias=False)

        def upper(alpha: Tensor, module: nn.Module, batch: Any) -> dict[str, Any]:
            def objective() -> Tensor:
                return (module.weight - 3).square().sum() + alpha.square().sum()

            return {"only": objective if late else objective()}

        problem = BilevelProblem(lambda alpha, module, batch: (module.weight - alpha).square().sum(), upper, (alpha, module))
        values = solver_of(kind, alpha, problem).step()
        return alpha.detach(), module.weight.detach(), values

    torch.testing.assert_close(run(late=True), run(late=False))


def test_modules_wrapped_for_several_processes_are_refused() -> None:
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self) -> None:  # a real one needs a process group
            nn.Module.__init__(self)
            self.module = nn.Linear(4, 2)

    with pytest.raises(InputError, match="wrapped in DistributedDataParallel"):
        weighted(lambda omega, x: omega(x), Wrapped())
    with pytest.raises(InputError, match="wrapped in DistributedDataParallel"):
        weighted(lambda omega, x: omega(x), torch.zeros(3), model=nn.Sequential(Wrapped()))


@pytest.mark.parametrize("kind", ALL)
def test_tensors_from_outside_are_left_alone(kind: type[BilevelSolver]) -> None:
    # A module that no level and no model= names, and features whose graph was made once: constants, both of them.
    torch.manual_seed(0)
    outside, head = nn.Linear(4, 4), nn.Linear(4, 2)
    features = outside(data()[0]).tanh()
    logits, problem = weighted(lambda omega, x: omega(outside(x)) + omega(features), head)
    solver = solver_of(kind, logits, problem)
    for _ in range(2):
        solver.step()
    assert outside.weight.grad is None
    features.sum().backward()


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
def test_an_answer_that_is_not_finite_is_the_lower_levels_fault_and_not_kept(memory: str) -> None:
    # f is finite where its gradient is not, in an entry that no upper objective looks at.
    alpha, omega = torch.tensor([1.0]), {"seen": torch.tensor([2.0]), "unseen": torch.zeros(1)}
    problem = BilevelProblem(
        lambda alpha, omega, batch: (omega["seen"] - alpha).square().sum() + omega["unseen"].square().sum().sqrt(),
        lambda alpha, omega, batch: (omega["seen"] - 3).square().sum(),
        (alpha, omega),
    )
    solver = MOML(problem, torch.optim.SGD([alpha], 0.1), lower_steps=1, lower_lr=0.1, memory=memory)
    with pytest.raises(NonFiniteError, match='lower level\'s variable "unseen"') as caught:
        solver.step()
    assert caught.value.tasks == ("lower",)
    assert [float(value.detach()) for value in (alpha, *omega.values())] == [1.0, 2.0, 0.0]


@pytest.mark.parametrize("kind", ALL)
def test_a_state_is_a_copy_that_neither_saving_nor_loading_ties_to_the_solver(kind: type[BilevelSolver]) -> None:
    torch.manual_seed(0)
    logits, problem = weighted(lambda omega, x: omega(x), nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
    solver = solver_of(kind, logits, problem)
    solver.step()
    state = solver.state_dict()
    before = kept(state)
    solver.step()
    assert_same_state(state, before)
    solver.load_state_dict(state)
    solver.step()
    assert_same_state(state, before)


def test_states_of_other_problems_are_refused_before_anything_changes() -> None:
    def solver(objectives: list[str] | None, lower: nn.Module, **options: Any) -> tuple[Tensor, BilevelSolver]:
        logits, problem = weighted(lambda omega, x: omega(x), lower, objectives=objectives, **options)
        return logits, solver_of(FORUM, logits, problem)

    torch.manual_seed(0)
    _, one = solver(["near", "far"], nn.Linear(4, 2))
    one.step()
    state = one.state_dict()
    logits, other = solver(["far", "near"], nn.Linear(4, 2))
    with pytest.raises(InputError, match="state is of the objectives near, far; the objectives here are far, near"):
        other.load_state_dict(state)
    with pytest.raises(InputError, match="no state of a bilevel solver: it lacks upper, lower"):
        other.load_state_dict({})
    with pytest.raises(InputError, match="of 2 optimizers; there are 1"):
        one.load_state_dict(state | {"optimizers": state["optimizers"] * 2})
    with pytest.raises(InputError, match=r"of another model than .* buffers"):
        one.load_state_dict(state | {"buffers": {"lower.center": torch.zeros(2)}})
    assert torch.equal(logits, torch.zeros(8))
    assert other.steps == 0
    _, third = solver(None, nn.Linear(4, 2))
    third.load_state_dict(state)
    assert third.problem.objectives == ("near", "far")


def test_a_multiplier_that_the_gradients_precision_cannot_hold_changes_nothing() -> None:
    # ν is about 1/‖∇q̃‖² = 1e8 or more, and half precision ends at 65504.
    alpha, omega = torch.ones(2, dtype=torch.float16), torch.zeros(2, dtype=torch.float16)
    problem = BilevelProblem(
        lambda alpha, omega, batch: 1e-3 * (omega - alpha).square().sum(),
        lambda alpha, omega, batch: [100 * (omega + 9).square().sum(), alpha.sum()],
        (alpha, omega),
    )
    solver = BOME(problem, torch.optim.SGD([alpha, omega], 0.1), lower_steps=2, lower_lr=0.1)
    with pytest.raises(NonFiniteError, match=r"in float16 with the lower level's multiplier .* is not finite"):
        solver.step()
    assert alpha.tolist() == [1.0, 1.0]
    assert omega.tolist() == [0.0, 0.0]
    assert alpha.grad is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [(FORUM, {}), (BOME, {}), (MOML, {}), (MOML, {"memory": "checkpointed"}), (MoCoBilevel, {"batched": True})],
)
def test_variables_that_nothing_depends_on_do_not_decay(kind: type[BilevelSolver], options: dict[str, Any]) -> None:
    upper, lower = ({"used": torch.ones(2), "idle": torch.ones(3)} for _ in range(2))
    problem = BilevelProblem(
        lambda alpha, omega, batch: (omega["used"] - alpha["used"]).square().sum(),
        lambda alpha, omega, batch: [(omega["used"] - end).square().sum() for end in (3.0, 4.0)],
        (upper, lower),
    )
    held = [*upper.values(), *lower.values()] if kind.moves_both else [*upper.values()]
    kind(problem, torch.optim.AdamW(held, 0.1, weight_decay=0.1), lower_steps=3, lower_lr=0.1, **options).step()
    assert not torch.equal(upper["used"], torch.ones(2))
    assert torch.equal(upper["idle"], torch.ones(3))
    assert torch.equal(lower["idle"], torch.ones(3))
