"""What cannot work says so in one line; what fails on the way leaves the model where it was."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, OFT, Dense, LoHa, LowRank, PaperFormulation, Released
from tests import problems
from tests.teleport.helpers import always, cost_with, eager_cost, optimizer_with, train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": "lora"}, r'there is no delta "lora"\. Did you mean "loha"'),
        ({"delta": LowRank}, "delta must be a Delta or one of lowrank, loha, oft, dense; got the class LowRank"),
        ({"formulation": "papers"}, r'there is no formulation "papers"\. Did you mean "paper"'),
        ({"formulation": "pareto", "seek": "mean"}, 'seek="mean" is rewarded with the factor gamma, which is 0'),
        ({"optimizer": "adam"}, "optimizer must make a torch optimizer from factors and lr"),
        ({"lr": math.inf}, "lr must be a positive step size"),
        ({"lr": "x"}, "lr must be a positive step size"),
        ({"budget": "x"}, "budget must be a positive share"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"formulation": PaperFormulation}, "formulation must be a Formulation or one of .*; got the class PaperFormulation"),
        ({"gamma": -1.0}, "gamma must be at least 0; got -1"),
        ({"radius": 0.0}, "radius must be positive; got 0"),
        ({"samples": 0}, "samples must be a whole number from 1 on; got 0"),
        ({"steps": 0}, "steps must be a whole number from 1 on; got 0"),
        ({"steps": 2.5}, "steps must be a whole number from 1 on; got 2.5"),
        ({"check_every": 0}, "check_every must be a whole number from 1 on; got 0"),
        ({"lr": 0.0}, "lr must be a positive step size of the inner optimizer, or .training.; got 0"),
        ({"lr": math.nan}, "lr must be a positive step size"),
        ({"scaling": "log"}, 'scaling must be "relative" or "none"; got \'log\''),
        ({"history": "drop"}, 'there is no history "drop"'),
        ({"history": 3}, "history must be a History or one of keep, .*; got int"),
        ({"trigger": "conflicts"}, 'there is no trigger "conflicts"'),
        ({"seek": "sharpnes"}, "seek must be one of sharpness, mean, smallest, pairwise; got 'sharpnes'"),
        ({"tolerance": 0.0}, "tolerance must be a positive relative loss change"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.InputError, match=message) as caught:
        cost_with(**options)
    assert "\n" not in str(caught.value)


class Vector(nn.Module):
    """A toy problem's model: the shared parameter is a point."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([1.0, 2.0]))


def toy(model: nn.Module, batch: None) -> dict[str, Tensor]:
    return {"a": (model.point - 1).square().sum(), "b": (model.point + 1).square().sum()}


@pytest.mark.parametrize("delta", [LowRank(), LoHa(), OFT()], ids=repr)
def test_nothing_to_adapt(delta: Any) -> None:
    mtl = optimizer_with(eager_cost(delta=delta, probe="current"), "ls", Vector(), toy)
    with pytest.raises(eq.InputError, match=r"has nothing to adapt: .*\(point \[2\]\)\. Use delta=Dense\(\)"):
        mtl.step(None)


def test_a_toy_problem_with_a_dense_delta() -> None:
    cost = eager_cost(delta=Dense(), probe="current")
    mtl = optimizer_with(cost, "ls", Vector(), toy)
    mtl.step(None)
    assert cost.attempts[0].accepted


@pytest.mark.parametrize("kind", [LowRank, LoHa])
def test_a_rank_larger_than_the_layers(kind: Any) -> None:
    mtl, fresh = optimizer_with(eager_cost(delta=kind(rank=9), start_step=100)), optimizer_with(None)
    # Said in the first step, not when the first conflict comes hours later.
    with pytest.raises(eq.InputError, match=r"\(rank=9\) is larger than every shared weight: the largest has rank 8"):
        train(mtl, range(1))
    assert problems.same(*(problems.parameters_of(run.objective.model) for run in (mtl, fresh)))
    assert (mtl.steps, mtl.last) == (0, None)


def test_shared_parameters_outside_the_model() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    outside = nn.Parameter(torch.ones(6))

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        return problems.losses(model, (batch[0] * outside, batch[1]))

    objective = eq.Objective(model, losses)
    optimizer = torch.optim.SGD([*model.parameters(), outside], lr=0.01)
    mtl = eq.MultiTaskOptimizer(objective, optimizer, "mgda", shared=[outside], teleport=eager_cost(probe="current"))
    with pytest.raises(eq.InputError, match="none of the shared parameters belongs to the objective's model"):
        mtl.step(problems.batch())


def test_probe_batches_that_do_not_fit() -> None:
    loader = [torch.zeros(3)] * 5
    mtl = optimizer_with(eager_cost(probe=loader))
    with pytest.raises(eq.InputError, match="probe"):
        train(mtl, range(2))


class Cliff:
    """A loss that is not finite away from where the shared weight is now."""

    def __init__(self, value: float, *, seeds: set[int], reach: float = 1e-4) -> None:
        self.value = value
        self.reach = reach
        self.center: Tensor | None = None
        self.keys = {float(problems.batch(seed=seed)[0][0, 0]) for seed in seeds}

    def __call__(self, model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        weight = model.encoder[0].weight  # type: ignore[union-attr, index]
        if self.center is not None and float(batch[0][0, 0]) in self.keys:
            away = bool((weight.detach() - self.center).abs().max() > self.reach)
            found["t1"] = found["t1"] * (self.value if away else 1.0)
        return found


def on_a_cliff(cliff: Cliff, **options: Any) -> tuple[COST, eq.MultiTaskOptimizer, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = problems.Heads()
    kept: dict[str, Tensor] = {}

    def note(gramian: Any) -> bool:
        cliff.center = model.encoder[0].weight.detach().clone()
        kept.update(problems.parameters_of(model))
        return True

    cost = eager_cost(note, delta=Dense(), lr=0.05, **options)
    # The step itself moves nothing, so that all that moves is the teleport.
    return cost, optimizer_with(cost, "mgda", model, cliff, make=torch.optim.Adam, lr=0.0), kept


def steps(mtl: eq.MultiTaskOptimizer, numbers: range, cliff: Cliff) -> list[str]:
    """Training itself meets no cliff; says what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in numbers:
            cliff.center = None
            mtl.step(problems.batch(seed=step))
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_search_that_meets_what_is_not_finite_is_given_up(value: float, guard: bool) -> None:
    cliff = Cliff(value, seeds=set(range(20)))
    cost, mtl, kept = on_a_cliff(cliff, guard=guard)
    warned = steps(mtl, range(2), cliff)
    assert problems.same(problems.parameters_of(mtl.objective.model), kept)
    assert len(cost.attempts) == 1
    report = cost.attempts[0]
    assert not report.accepted
    assert report.reason == "the loss of t1 became non-finite"
    assert report.losses_after == report.cosines_after == report.norms_after == ()
    assert math.isnan(report.measure_after)
    assert len(report.losses_before) == 3
    assert warned == ["a teleport was given up and the model stays where it was: the loss of t1 became non-finite"]
    # Counted and backed off like any refusal, and not warned of again.
    assert steps(mtl, range(2, 20), cliff) == []
    assert [report.step for report in cost.attempts] == [1, 3, 7, 15]


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_landing_where_a_held_out_loss_is_not_finite_is_refused(value: float, guard: bool) -> None:
    cliff = Cliff(value, seeds={0})
    cost, mtl, kept = on_a_cliff(cliff, guard=guard, probe_batches=1, held_out_batches=1)
    steps(mtl, range(2), cliff)
    assert problems.same(problems.parameters_of(mtl.objective.model), kept)
    assert [(report.accepted, report.reason) for report in cost.attempts] == [(False, "a loss or gradient is not finite there")]
    steps(mtl, range(2, 6), cliff)


def test_a_landing_that_is_not_finite_is_refused_without_checks_as_well() -> None:
    cliff = Cliff(math.inf, seeds={0})
    cost, mtl, kept = on_a_cliff(cliff, guard=False)
    mtl._balancing.context.check_finite = False
    steps(mtl, range(2), cliff)
    assert problems.same(problems.parameters_of(mtl.objective.model), kept)
    assert [(report.accepted, report.reason) for report in cost.attempts] == [(False, "a loss or gradient is not finite there")]


def test_after_a_loss_that_was_not_finite_teleports_go_on() -> None:
    inputs, targets = problems.batch(seed=50)
    targets = targets.clone()
    targets[0, 1] = math.inf
    loader = [(inputs, targets), problems.batch(seed=51)]
    cost = eager_cost(probe=loader, delta=Dense())
    mtl = optimizer_with(cost)
    with pytest.warns(UserWarning, match="given up"):
        train(mtl, range(1))
    cost._held._held.clear()
    cost._held._held.extend([(problems.batch(seed=51),), (problems.batch(seed=52),)])
    train(mtl, range(1, 6))
    assert cost.attempts[-1].accepted
    assert cost.attempts[-1].distance > 1e-3


def test_an_error_in_a_probe_leaves_the_model_and_the_next_step_fine() -> None:
    """Whatever a loss function raises at the landing: the parameters are those before the step."""
    torch.manual_seed(0)
    model = problems.Heads()
    kept: dict[str, Tensor] = {}

    def note(gramian: Any) -> bool:
        kept.update(problems.parameters_of(model))
        return True

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        weight = model.encoder[0].weight  # type: ignore[union-attr, index]
        if kept and isinstance(weight, nn.Parameter) and not torch.equal(weight, kept["encoder.0.weight"]):
            raise KeyError("a loss function's own error")
        return problems.losses(model, batch)

    mtl = optimizer_with(eager_cost(note, delta=Dense()), "mgda", model, losses)
    train(mtl, range(1))
    with pytest.raises(eq.InputError, match=r"does not fit the loss function \(KeyError: .*own error"):
        train(mtl, range(1, 2))
    assert problems.same(problems.parameters_of(model), kept)
    kept.clear()
    mtl.teleport = None
    train(mtl, range(2, 3))


def test_an_inner_optimizer_that_goes_astray_is_refused() -> None:
    """Factors that are infinite after the last step of the search were never looked at by it."""
    cost = eager_cost(always, delta=Dense(), steps=1, lr=1e38, optimizer=torch.optim.SGD, gamma=1e5)
    mtl, plain = optimizer_with(cost), optimizer_with(None)
    train(plain, range(2))
    train(mtl, range(2))
    assert problems.same(problems.parameters_of(mtl.objective.model), problems.parameters_of(plain.objective.model))
    assert [report.accepted for report in cost.attempts] == [False]


@pytest.mark.parametrize("teleport", [COST, "cost"])
def test_what_is_no_teleport_is_refused_at_once(teleport: Any) -> None:
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(eq.InputError, match=r"teleport must be an instance such as equipoise.COST\(\)"):
        eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), optimizer, "mgda", teleport=teleport)


def test_the_default_rank_fits_where_the_shared_parameters_are_found_by_the_first_look() -> None:
    """Loss-based balancers know the shared parameters only once COST has formed a Gramian."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": nn.Linear(4, 3), "a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})

    def losses(model: Any, batch: Tensor) -> dict[str, Tensor]:
        features = model["encoder"](batch)
        return {name: (model[name](features) - shift).square().mean() for name, shift in (("a", 1.0), ("b", -1.0))}

    cost = cost_with(always, budget=None, cooldown=1, check_every=1, probe_batches=1)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), "ls", teleport=cost)
    for seed in range(3):
        mtl.step(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)))
    assert cost.attempts
    assert cost.attempts[-1].distance > 0


def test_a_trigger_of_ones_own_needs_no_name() -> None:
    class Always(Released):
        def __call__(self, gramian: Any) -> bool:
            return True

    cost = eager_cost(Always(), delta=Dense())
    train(optimizer_with(cost), range(3))
    assert {report.trigger for report in cost.attempts} == {"Always"}


def test_gramians_under_a_gradient_scaler_do_not_vanish() -> None:
    torch.manual_seed(0)
    model = problems.Heads()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.float16):
            return {name: loss * 1e-6 for name, loss in problems.losses(model, batch).items()}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, "mgda", scaler=scaler)
    mtl.step(problems.batch())
    looked = mtl.gramian(problems.batch())
    assert bool((looked.diagonal() > 0).all())
