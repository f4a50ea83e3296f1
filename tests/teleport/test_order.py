"""A step that teleports is, but for where it is taken from, the step that it would be: algorithm 1 of the COST paper."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, LowRank
from tests import problems
from tests.faults.test_optimizers import SAM
from tests.states import assert_same_state, kept
from tests.teleport.helpers import eager_cost, optimizer_with, timeless, train

LANDING = 4


class Noting(COST):
    """Notes all that a step meets at the new point."""

    def arrived(self, mtl: eq.MultiTaskOptimizer, report: Any) -> bool:
        stays = super().arrived(mtl, report)
        self.point = problems.parameters_of(mtl.objective.model)
        return stays


def noting(**options: Any) -> Noting:
    cost = eager_cost(delta=LowRank(rank=2), start_step=LANDING, stop_step=LANDING + 1, **options)
    return Noting(
        cost.trigger,
        delta=cost.delta,
        search=cost.search,
        guard=cost.guard,
        schedule=cost.schedule,
        probes=cost.probes,
        history=cost.history,
    )


def optimizer_for(cost: COST | None, options: dict[str, Any], balancer: str) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = problems.Heads(dropout=0.2, norm=True)
    heads = {f"t{number}": f"heads.{number}" for number in range(3)}
    own = eq.RotoGrad(features="encoder", heads=heads) if balancer == "rotograd" else balancer
    return optimizer_with(cost, own, model, **({"make": torch.optim.Adam} | options))


def lbfgs(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "losses": ("ls", {}),
    "losses, observed": ("famo", {}),
    "Gramian": ("mgda", {}),
    "Gramian, with a memory": ("nash-mtl:update_every=3", {}),
    "gradients": ("moco", {}),
    "random": ("graddrop", {}),
    "router": ("ldc-mtl", {}),
    "features": ("mgda", {"features": "encoder"}),
    "proxy": ("mgda@last", {}),
    "streamed": ("mgda", {"memory": "streamed"}),
    "rotated": ("rotograd", {}),
    "batched": ("mgda", {"batched": 0}),
    "closure": ("mgda", {"make": lbfgs}),
    "sharpness-aware": ("mgda", {"make": SAM}),
    "clip": ("fairgrad", {"clip": 0.1}),
    "scaler": ("mgda", {"scaler": 2.0**8}),
}


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_teleports_is_a_step_from_the_new_point(way: str, micro_batches: int) -> None:
    balancer, options = WAYS[way]
    if micro_batches > 1 and way in ("features", "streamed", "rotated"):
        pytest.skip("takes one batch per step")

    def fresh(cost: COST | None) -> eq.MultiTaskOptimizer:
        own = dict(options)
        if "scaler" in own:
            own["scaler"] = torch.amp.GradScaler("cpu", init_scale=own["scaler"])
        return optimizer_for(cost, own, balancer)

    cost = noting()
    mtl, plain = fresh(cost), fresh(None)
    torch.manual_seed(5)
    train(mtl, range(LANDING), micro_batches)
    state, random = kept(mtl.state_dict()), torch.get_rng_state()
    train(mtl, range(LANDING, LANDING + 1), micro_batches)
    assert [report.accepted for report in cost.attempts] == [True]
    after, drawn = mtl.state_dict(), torch.get_rng_state()

    train(plain, range(1), micro_batches)  # makes what a first step makes
    plain.load_state_dict(state | {"teleport": None})
    with torch.no_grad():
        for name, parameter in plain.objective.model.named_parameters():
            parameter.copy_(cost.point[name])
    torch.set_rng_state(random)
    train(plain, range(LANDING, LANDING + 1), micro_batches)
    assert_same_state({**after, "teleport": None}, plain.state_dict())
    assert torch.equal(drawn, torch.get_rng_state())
    assert mtl.last is not None
    assert plain.last is not None
    assert torch.equal(mtl.last.losses, plain.last.losses)
    assert (mtl.last.gramian is None) == (plain.last.gramian is None)
    assert mtl.last.gramian is None or torch.equal(mtl.last.gramian, plain.last.gramian)  # type: ignore[arg-type]


@pytest.mark.parametrize("balancer", ["ls", "mgda", "moco", "nash-mtl:update_every=3", "mgda, scaler"])
@pytest.mark.parametrize("history", ["reuse", "reset"])
def test_a_step_that_fails_after_a_landing_has_never_been(balancer: str, history: str) -> None:
    balancer, _, scaled = balancer.partition(", ")

    def scaler() -> dict[str, Any]:
        return {"scaler": torch.amp.GradScaler("cpu", init_scale=2.0**8)} if scaled else {}

    class Failing(torch.optim.Adam):
        fails = False

        def step(self, closure: Any = None) -> Any:
            if self.fails:
                raise RuntimeError("no step")
            return super().step(closure)

    cost = noting(history=history)
    mtl = optimizer_for(cost, {"make": Failing} | scaler(), balancer)
    torch.manual_seed(5)
    train(mtl, range(LANDING))
    before, random, waits = kept(mtl.state_dict()), torch.get_rng_state(), dict(cost.waits)
    mtl.optimizer.fails = True
    with pytest.raises(RuntimeError, match="no step"):
        train(mtl, range(LANDING, LANDING + 1))
    assert not problems.same(problems.parameters_of(mtl.objective.model), cost.point), "it had landed"
    assert_same_state(before, mtl.state_dict())
    assert torch.equal(random, torch.get_rng_state())
    assert (cost.attempts, cost.waits) == ([], waits)
    # Taken again it is the step that it would have been.
    mtl.optimizer.fails = False
    train(mtl, range(LANDING, LANDING + 1))
    other = noting(history=history)
    straight = optimizer_for(other, {"make": Failing} | scaler(), balancer)
    torch.manual_seed(5)
    train(straight, range(LANDING + 1))
    assert problems.same(*(problems.parameters_of(run.objective.model) for run in (mtl, straight)))
    assert timeless(cost.attempts) == timeless(other.attempts)


@pytest.mark.parametrize(("balancer", "looks"), [("mgda", 0), ("ls", 2)])
def test_evaluations_of_a_step_that_teleports(balancer: str, looks: int) -> None:
    """One more than of a step that does not, and of the search; where no Gramian is formed, one on either side."""
    counted = 0

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        nonlocal counted
        counted += 1
        return problems.losses(model, batch)

    cost = eager_cost(delta=LowRank(rank=2), probe="current", samples=1, steps=3, start_step=2, stop_step=3)
    mtl = optimizer_with(cost, balancer, losses=losses)
    for step in range(4):
        counted = 0
        train(mtl, range(step, step + 1))
        reference, search = 1, 3 * 2
        assert counted == (2 + looks + reference + search if step == 2 else 1)


def test_a_guard_without_held_out_batches_judges_the_steps_own() -> None:
    cost = eager_cost(delta=LowRank(rank=2), probe="current", guard=True, tolerance=1e-12, lr=0.05)
    mtl, plain = optimizer_with(cost), optimizer_with(None)
    train(mtl, range(4))
    train(plain, range(4))
    assert len(cost.attempts) >= 2
    assert all("the losses change" in report.reason for report in cost.attempts)
    assert all(report.batch_losses_after == report.losses_after != report.losses_before for report in cost.attempts)
    assert problems.same(*(problems.parameters_of(run.objective.model) for run in (mtl, plain)))


@pytest.mark.parametrize("growth", [0.5, 2.0])
def test_shrinking_gradients_are_warned_of_once(growth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.teleport.attempt.TeleportReport.growth", growth)
    cost = eager_cost(delta=LowRank(rank=2))
    mtl = optimizer_with(cost)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(mtl, range(8))
    said = [str(warning.message) for warning in caught]
    expected = "over 3 teleports the norms of the task gradients became 0.50 of what they were"
    assert [message.startswith(expected) for message in said] == ([True] if growth < 1 else [])


def test_growth_is_not_known_where_a_gradient_vanishes() -> None:
    cost = eager_cost(delta=LowRank(rank=2))
    train(optimizer_with(cost), range(2))
    entries = cost.attempts[0].as_dict()
    assert cost.attempts[0].growth > 0
    gone = type(cost.attempts[0]).from_dict(entries | {"norms_before": [0.0, 1.0, 1.0]})
    assert math.isnan(gone.growth)


@pytest.mark.parametrize("balancer", ["ls", "mgda", "fairgrad@last"])
def test_a_first_step_whose_new_point_is_not_finite_is_taken_from_where_it_was(balancer: str) -> None:
    """The tasks that the step has named stay known while it goes on, and are unknown again where it then fails."""
    cost = eager_cost(delta=LowRank(rank=2), probe="current", steps=1, lr=1e30)
    mtl, plain = optimizer_with(cost, balancer), optimizer_with(None, balancer)
    train(mtl, range(2))
    train(plain, range(2))
    (attempt,) = cost.attempts
    assert (attempt.step, attempt.reason) == (0, "a loss or gradient is not finite there")
    assert_same_state({**mtl.state_dict(), "teleport": None}, plain.state_dict())

    def failing(*_: Any) -> bool:
        raise RuntimeError("no")

    cost = eager_cost(delta=LowRank(rank=2), probe="current", steps=1, lr=1e30)
    cost.before_step = failing  # type: ignore[method-assign, assignment]
    mtl = optimizer_with(cost, balancer)
    before = kept(mtl.state_dict())
    with pytest.raises(RuntimeError, match="no"):
        train(mtl, range(1))
    assert_same_state(mtl.state_dict(), before)
