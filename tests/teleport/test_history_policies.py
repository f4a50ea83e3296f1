"""What a landing does to the optimizer's memory, seen from a training run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, Dense, History, LowRank, ReleasedHistory, ReuseHistory
from tests import problems
from tests.teleport.helpers import eager_cost, optimizer_with, train

WEIGHTS = ("encoder.0.weight", "encoder.2.weight")
LANDING = 4


def once(history: str | History, **options: Any) -> COST:
    """A single landing, after step 4."""
    options = {"delta": LowRank(rank=2), "start_step": LANDING, "stop_step": LANDING + 1} | options
    return eager_cost(history=history, **options)


def landed(
    history: str | History, make: Any = torch.optim.Adam, balancer: str = "mgda", **options: Any
) -> eq.MultiTaskOptimizer:
    """A run right after its landing."""
    cost = once(history, **options)
    mtl = optimizer_with(cost, balancer, make=make)
    train(mtl, range(LANDING + 1))
    assert [report.accepted for report in cost.attempts] == [True]
    return mtl


def memory(mtl: eq.MultiTaskOptimizer) -> dict[str, dict[str, Tensor]]:
    return {
        name: {key: torch.as_tensor(value).clone() for key, value in mtl.optimizer.state.get(parameter, {}).items()}
        for name, parameter in mtl.objective.model.named_parameters()
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def with_sigma(monkeypatch: pytest.MonkeyPatch, sigma: float) -> None:
    """The cosine itself is small on most problems; here it is what the test needs."""
    monkeypatch.setattr("equipoise.teleport.attempt.similarity", lambda pairs: sigma)


def test_reuse_is_equation_13_for_the_teleported_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, 0.3)
    reused, kept = landed("reuse"), landed("keep")
    assert all(equal(memory(reused)[name], memory(kept)[name]) for name in memory(kept)), "the blend waits for a gradient"
    before = memory(reused)
    for mtl in (reused, kept):
        train(mtl, range(LANDING + 1, LANDING + 2))
    after, plain = memory(reused), memory(kept)
    named = dict(reused.objective.model.named_parameters())
    ours, theirs = (problems.parameters_of(mtl.objective.model) for mtl in (reused, kept))
    for name, parameter in named.items():
        if name not in WEIGHTS:
            assert equal(after[name], plain[name])
            assert torch.equal(ours[name], theirs[name])
            continue
        gradient = parameter.grad
        assert gradient is not None
        for key, beta, fresh in (("exp_avg", 0.9, gradient), ("exp_avg_sq", 0.999, gradient**2)):
            steps = LANDING + 2
            mass = (1 - beta**steps) / (1 - 0.3 * beta**steps)
            expected = mass * (0.3 * beta * before[name][key] + (1 - 0.3 * beta) * fresh)
            torch.testing.assert_close(after[name][key], expected, rtol=1e-4, atol=1e-9)
        assert torch.equal(after[name]["step"], plain[name]["step"])
        assert not torch.equal(ours[name], theirs[name])
    # Afterwards σ is 1 again.
    counters = memory(reused)
    train(reused, range(LANDING + 2, LANDING + 3))
    for name in WEIGHTS:
        gradient = dict(reused.objective.model.named_parameters())[name].grad
        expected = 0.9 * counters[name]["exp_avg"] + 0.1 * gradient
        torch.testing.assert_close(memory(reused)[name]["exp_avg"], expected, rtol=1e-4, atol=1e-9)


def test_the_blend_takes_the_clipped_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, 0.0)
    cost = once("reuse")
    mtl = optimizer_with(cost, make=torch.optim.Adam, clip=1e-3)
    train(mtl, range(LANDING + 2))
    parameter = dict(mtl.objective.model.named_parameters())[WEIGHTS[0]]
    assert parameter.grad is not None
    assert float(parameter.grad.norm()) <= 1e-3
    average = mtl.optimizer.state[parameter]["exp_avg"] / (1 - 0.9 ** (LANDING + 2))
    torch.testing.assert_close(average, parameter.grad)


@pytest.mark.parametrize("sigma", [0.3, 0.0, -0.2])
def test_mass_lowers_the_counter_of_the_teleported_parameters(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, sigma)
    discounted, kept = memory(landed("mass")), memory(landed("keep"))
    for name in discounted:
        if name not in WEIGHTS:
            assert equal(discounted[name], kept[name])
        elif sigma <= 0:
            assert discounted[name] == {}
        else:
            assert 0 < float(discounted[name]["step"]) < float(kept[name]["step"]) == LANDING + 1


def test_reset_forgets_the_teleported_parameters_alone() -> None:
    forgotten, kept = memory(landed("reset")), memory(landed("keep"))
    for name in forgotten:
        assert forgotten[name] == {} if name in WEIGHTS else equal(forgotten[name], kept[name])


def test_keep_changes_nothing() -> None:
    kept = memory(landed("keep"))
    plain = optimizer_with(None, make=torch.optim.Adam)
    train(plain, range(LANDING + 1))
    assert all(equal(kept[name], memory(plain)[name]) for name in kept)


@pytest.mark.parametrize("sigma", [0.3, 0.0, -0.2])
def test_released_starts_afresh_below_zero_and_blends_above(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sigma(monkeypatch, sigma)
    released = landed("released")
    if sigma <= 0:
        assert all(state == {} for state in memory(released).values()), "of every parameter"
        moved = memory(landed(ReleasedHistory(scope="moved")))
        assert all((state == {}) == (name in WEIGHTS) for name, state in moved.items())
        return
    reused = landed(ReuseHistory(scope="all"))
    for mtl in (released, reused):
        train(mtl, range(LANDING + 1, LANDING + 3))
    assert problems.same(*(problems.parameters_of(mtl.objective.model) for mtl in (released, reused)))


@pytest.mark.parametrize("history", ["reuse", "mass", "reset", "released"])
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


@pytest.mark.parametrize("history", ["reuse", "mass", "reset", "keep", "released"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_policy_goes_with_every_optimizer(name: str, history: str) -> None:
    cost = eager_cost(history=history, delta=LowRank(rank=2))
    mtl = optimizer_with(cost, make=MAKERS[name], lr=0.001)
    train(mtl, range(8))
    assert len(cost.attempts) == 7
    assert all(bool(torch.isfinite(parameter).all()) for parameter in mtl.objective.model.parameters())


@pytest.mark.parametrize("history", ["reuse", "mass", "reset", "keep"])
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


@pytest.mark.parametrize("history", ["reuse", "mass", "reset", "keep"])
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
    with pytest.raises(eq.InputError, match=r'there is no history "forget"\..* Known: keep, mass, released, reset, reuse'):
        COST(history="forget")
