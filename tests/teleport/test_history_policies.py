"""What a landing does to the optimizer's memory, seen from a training run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, Dense, History, LowRank, ResetHistory, ReuseHistory, reset
from tests import problems
from tests.teleport.helpers import eager_cost, optimizer_with, train

WEIGHTS = ("encoder.0.weight", "encoder.2.weight")
LANDING = 4


def once(history: str | History, **options: Any) -> COST:
    """A single landing, in step 4."""
    options = {"delta": LowRank(rank=2), "start_step": LANDING, "stop_step": LANDING + 1} | options
    return eager_cost(history=history, **options)


Memory = dict[str, dict[str, Tensor]]


def landed(history: str | History, make: Any = torch.optim.Adam, **options: Any) -> tuple[eq.MultiTaskOptimizer, Memory]:
    """A run right after the step of its landing, and what its optimizer remembered before that step."""
    before: Memory = {}

    def note(gramian: Any) -> bool:
        before.update(memory(mtl))
        return True

    cost = once(history, trigger=note, **options)
    mtl = optimizer_with(cost, "mgda", make=make)
    train(mtl, range(LANDING + 1))
    assert [report.accepted for report in cost.attempts] == [True]
    return mtl, before


def memory(mtl: eq.MultiTaskOptimizer) -> Memory:
    return {
        name: {key: torch.as_tensor(value).clone() for key, value in mtl.optimizer.state.get(parameter, {}).items()}
        for name, parameter in mtl.objective.model.named_parameters()
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def with_sigma(monkeypatch: pytest.MonkeyPatch, sigma: float) -> None:
    """The cosine itself is small on most problems; here it is what the test needs."""
    monkeypatch.setattr("equipoise.teleport.attempt.similarity", lambda pairs: sigma)


def expected_average(key: str, before: Tensor, gradient: Tensor, sigma: float, steps: int) -> Tensor:
    beta, fresh = (0.9, gradient) if key == "exp_avg" else (0.999, gradient**2)
    mass = (1 - beta**steps) / (1 - sigma * beta**steps)
    return mass * (sigma * beta * before + (1 - sigma * beta) * fresh)


@pytest.mark.parametrize("scope", ["moved", "all"])
def test_reuse_is_equation_13_with_the_gradients_at_the_new_point(scope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, 0.3)
    mtl, before = landed(ReuseHistory(scope=scope))
    for step in (LANDING, LANDING + 1):
        # Afterwards σ is 1 again.
        after = memory(mtl)
        for name, parameter in mtl.objective.model.named_parameters():
            gradient = parameter.grad
            assert gradient is not None
            sigma = 0.3 if step == LANDING and (scope == "all" or name in WEIGHTS) else 1.0
            for key in ("exp_avg", "exp_avg_sq"):
                expected = expected_average(key, before[name][key], gradient, sigma, step + 1)
                torch.testing.assert_close(after[name][key], expected, rtol=1e-4, atol=1e-9)
            assert float(after[name]["step"]) == step + 1
        before = after
        train(mtl, range(step + 1, step + 2))


def test_the_blend_takes_the_clipped_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, 0.0)
    cost = once("reuse")
    mtl = optimizer_with(cost, make=torch.optim.Adam, clip=1e-3)
    train(mtl, range(LANDING + 1))
    parameter = dict(mtl.objective.model.named_parameters())[WEIGHTS[0]]
    assert parameter.grad is not None
    assert float(parameter.grad.norm()) <= 1e-3
    average = mtl.optimizer.state[parameter]["exp_avg"] / (1 - 0.9 ** (LANDING + 1))
    torch.testing.assert_close(average, parameter.grad)


@pytest.mark.parametrize("scope", ["moved", "all"])
def test_reset_makes_the_step_a_first_one(scope: Any) -> None:
    after = memory(landed(ResetHistory(scope=scope))[0])
    for name, own in after.items():
        assert float(own["step"]) == (1 if scope == "all" or name in WEIGHTS else LANDING + 1)


@pytest.mark.parametrize("moved", [0, 1])
def test_reset_forgets_the_one_memory_of_lbfgs(moved: int) -> None:
    """It lies under the first parameter, whichever of them have moved."""
    weights = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    lbfgs = torch.optim.LBFGS(weights, max_iter=3)

    def loss() -> Any:
        lbfgs.zero_grad()
        total = sum((weight**4).sum() for weight in weights)
        total.backward()
        return total

    lbfgs.step(loss)
    assert lbfgs.state[weights[0]]["old_dirs"]
    reset(lbfgs, [torch.ones(2)])
    assert lbfgs.state[weights[0]]["old_dirs"]
    reset(lbfgs, [weights[moved]])
    assert not lbfgs.state


def test_keep_changes_nothing() -> None:
    mtl, before = landed("keep")
    for name, parameter in mtl.objective.model.named_parameters():
        assert parameter.grad is not None
        expected = 0.9 * before[name]["exp_avg"] + 0.1 * parameter.grad
        torch.testing.assert_close(memory(mtl)[name]["exp_avg"], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 0.0, -0.2])
def test_released_starts_afresh_below_zero_and_blends_above(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, sigma)
    like = ReuseHistory(scope="all") if sigma > 0 else ResetHistory(scope="all")
    (released, _), (other, _) = landed("released"), landed(like)
    assert problems.same(*(problems.parameters_of(mtl.objective.model) for mtl in (released, other)))
    assert all(equal(memory(released)[name], memory(other)[name]) for name in memory(other))


def test_parameters_that_the_step_does_not_reach_wait_for_their_blend() -> None:
    """Partial labels: the last head's own task is not in the batch of the landing."""

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        if bool(batch[0][0, 0] == problems.batch(seed=10 * LANDING)[0][0, 0]):
            del found["t2"]
        return found

    cost = once(ReuseHistory(scope="all"))
    mtl = optimizer_with(cost, losses=losses, make=torch.optim.Adam, tasks=["t0", "t1", "t2"])
    train(mtl, range(LANDING + 1))
    assert set(cost._pending) == {"heads.2.weight", "heads.2.bias"}
    before, share = memory(mtl), max(cost.attempts[0].sigma, 0.0)
    assert float(before["heads.2.weight"]["step"]) == LANDING
    train(mtl, range(LANDING + 1, LANDING + 2))
    assert cost._pending == {}
    for name in ("heads.2.weight", "heads.1.weight"):
        gradient = dict(mtl.objective.model.named_parameters())[name].grad
        assert gradient is not None
        sigma, steps = (share, LANDING + 1) if "2" in name else (1.0, LANDING + 2)
        expected = expected_average("exp_avg", before[name]["exp_avg"], gradient, sigma, steps)
        torch.testing.assert_close(memory(mtl)[name]["exp_avg"], expected, rtol=1e-4, atol=1e-9)


def test_a_step_that_is_not_taken_leaves_no_blend_to_come() -> None:
    class Idle(torch.optim.Adam):
        idle = False

        def step(self, closure: Any = None) -> Any:
            return None if self.idle else super().step(closure)

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        if getattr(mtl.optimizer, "idle", False):
            del found["t2"]
        return found

    cost = once(ReuseHistory(scope="all"))
    mtl = optimizer_with(cost, losses=losses, make=Idle, tasks=["t0", "t1", "t2"])
    train(mtl, range(LANDING))
    before = memory(mtl)
    mtl.optimizer.idle = True
    with pytest.warns(UserWarning, match="moved no parameter"):
        train(mtl, range(LANDING, LANDING + 1))
    assert [report.reason for report in cost.attempts] == ["the step was not taken"]
    assert cost._pending == {}
    assert all(equal(before[name], after) for name, after in memory(mtl).items())


@pytest.mark.parametrize("history", ["reuse", "reset", "released"])
@pytest.mark.parametrize("tolerance", [1e-12])
def test_a_refused_landing_leaves_the_memory(history: str, tolerance: float) -> None:
    cost = once(history, guard=True, tolerance=tolerance, delta=Dense())
    mtl, plain = (optimizer_with(teleport, make=torch.optim.Adam) for teleport in (cost, None))
    for run in (mtl, plain):
        train(run, range(LANDING + 3))
    assert [report.accepted for report in cost.attempts] == [False]
    assert all(equal(memory(mtl)[name], memory(plain)[name]) for name in memory(plain))


MAKERS: dict[str, Any] = {
    "Adam, fused": lambda parameters, lr: torch.optim.Adam(parameters, lr, fused=True),
    "AdamW, amsgrad": lambda parameters, lr: torch.optim.AdamW(parameters, lr, amsgrad=True),
    "NAdam": torch.optim.NAdam,
    "RMSprop": lambda parameters, lr: torch.optim.RMSprop(parameters, lr, momentum=0.9),
    "RMSprop, centred": lambda parameters, lr: torch.optim.RMSprop(parameters, lr, centered=True),
    "SGD": torch.optim.SGD,
    "SGD, momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True),
    "SGD, fused": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9, fused=True),
    "Adagrad": torch.optim.Adagrad,
    "Adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("history", ["reuse", "reset", "keep", "released"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_policy_goes_with_every_optimizer(name: str, history: str) -> None:
    cost = eager_cost(history=history, delta=LowRank(rank=2))
    mtl = optimizer_with(cost, make=MAKERS[name], lr=0.001)
    train(mtl, range(5))
    assert len(cost.attempts) == 4
    assert all(bool(torch.isfinite(parameter).all()) for parameter in mtl.objective.model.parameters())


@pytest.mark.parametrize("history", ["reuse", "reset", "keep"])
def test_an_optimizer_without_state_yet(history: str) -> None:
    """Parameters that the optimizer meets only after the landing."""
    cost = once(history, start_step=1, stop_step=2)
    mtl = optimizer_with(cost, make=torch.optim.Adam)
    train(mtl, range(1))
    mtl.optimizer.state.clear()
    for parameter in mtl.objective.model.parameters():
        parameter.requires_grad_(True)
    train(mtl, range(1, 4))
    assert [report.accepted for report in cost.attempts] == [True]


@pytest.mark.parametrize("history", ["reuse", "reset", "keep"])
def test_a_sparse_table(history: str) -> None:
    """An embedding with sparse gradients is shared, and SparseAdam takes nothing else."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4, sparse=True)

        def forward(self, indices: Tensor) -> Tensor:
            out: Tensor = self.table(indices)
            return out

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        rows = model(batch)
        return {"up": (rows - 1).square().mean(), "down": (rows[:, :2] + 2).square().mean()}

    torch.manual_seed(0)
    cost = eager_cost(history=history, delta=LowRank(rank=2))
    mtl = optimizer_with(cost, "mgda", Table(), losses, make=torch.optim.SparseAdam)
    for step in range(6):
        mtl.step(torch.randint(0, 10, (6,), generator=torch.Generator().manual_seed(step)))
    assert len(cost.attempts) == 5
    assert all(report.accepted and abs(report.sigma) <= 1 for report in cost.attempts)


def test_unknown_policies() -> None:
    with pytest.raises(eq.InputError, match=r'there is no history "forget"\..* Known: keep, released, reset, reuse'):
        COST(history="forget")
