"""NORMAL with the rest of the library: what counts as shared, every balancer, COST, saved states."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import OnFeatures
from equipoise.nets import (
    NORMAL,
    DigitsNet,
    FixedPositions,
    LearnedPositions,
    PositivePositions,
    Solver,
    TaskFlow,
    position_groups,
)
from equipoise.teleport.attempt import shared_by_name
from tests.nets.flows import TASKS, batch, losses, model
from tests.teleport.helpers import eager_cost

SOLVERS = [Solver(), Solver("midpoint", step_size=0.5, adjoint=True)]


def optimizer_of(network: nn.Module, balancer: Any, make: Any = torch.optim.SGD, **options: Any) -> eq.MultiTaskOptimizer:
    return eq.MultiTaskOptimizer(eq.Objective(network, losses), make(network.parameters(), lr=0.05), balancer, **options)


def own_gradients(network: nn.Module) -> dict[str, Tensor]:
    """What each position's own task says, by plain autograd."""
    values = losses(network, batch())
    places = network.flow.positions.learned
    return {
        task: torch.autograd.grad(values[task], place, retain_graph=True)[0] for task, place in zip(TASKS, places, strict=True)
    }


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("places", [(0.7, 1.3, -0.4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.5, -0.5)])
@pytest.mark.parametrize("first_order", [False, True])
def test_positions_are_the_tasks_own_and_all_else_in_the_flow_is_shared(
    solver: Solver, places: tuple[float, ...], first_order: bool
) -> None:
    network = model(solver=solver, first_order=first_order, positions=LearnedPositions(TASKS, places))
    mtl = optimizer_of(network, eq.FairGrad())
    expected = own_gradients(network)
    mtl.step(batch())
    assert {id(parameter) for parameter in mtl.shared} == {id(parameter) for parameter in network.shared_parameters()}
    for task, place in zip(TASKS, network.flow.positions.learned, strict=True):
        assert place.grad is not None
        assert torch.allclose(place.grad, expected[task], rtol=1e-6, atol=1e-9)
        assert place.grad.any()


def test_two_tasks_of_which_one_sits_at_zero_still_share_the_flow() -> None:
    flow = TaskFlow.for_vectors(["a", "b"], 6, positions=LearnedPositions(["a", "b"], [0.0, 1.0]))
    network = NORMAL(nn.Linear(4, 6), flow, {"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)})

    def both(network: nn.Module, given: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        out = network(given[0])
        return {task: (out[task] - given[1][:, :1]).square().mean() for task in ("a", "b")}

    mtl = eq.MultiTaskOptimizer(eq.Objective(network, both), torch.optim.SGD(network.parameters(), 0.1), eq.MGDA())
    for _ in range(5):
        mtl.step(batch())
    assert len(mtl.shared) == 2 + 9
    assert all(place != start for place, start in zip(flow.positions.values().values(), (0.0, 1.0), strict=True))


@pytest.mark.parametrize("info", eq.methods(), ids=lambda info: info.name)
def test_every_balancer_trains_it(info: eq.balance.MethodInfo) -> None:
    if not info.cls.__module__.startswith("equipoise."):
        pytest.skip("registered by another test")
    network = model()
    if issubclass(info.cls, OnFeatures):
        pytest.skip("acts between the encoder's output and heads that are given it as it is; see the next test")
    balancer = info.cls()
    mtl = optimizer_of(network, balancer)
    expected = own_gradients(network)
    further = [batch(seed) for seed in range(1, 1 + further_batches(balancer))]

    def step() -> None:
        mtl.step(batch(), **({"further": further} if further else {}))

    start = losses(network, batch())
    places = network.flow.positions.learned
    began = [place.detach().clone() for place in places]
    step()
    found = [place.grad for place in places]
    assert all(gradient is not None and bool(torch.isfinite(gradient)) for gradient in found)
    if info.cost != "losses" and info.name not in ("consmtl", "samo"):
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(found, expected.values(), strict=True))
    for _ in range(9):
        step()
    for task, loss in losses(network, batch()).items():
        assert loss.item() < 0.98 * start[task].item(), task
    assert all(place != was for place, was in zip(places, began, strict=True))


def test_methods_for_heads_on_the_encoders_output_refuse_it() -> None:
    parts: dict[str, Any] = {"features": "encoder", "heads": {task: f"heads.{task}" for task in TASKS}}
    with pytest.raises(eq.InputError, match="must be given the output of the features module as it is"):
        optimizer_of(model(), eq.RotoGrad(**parts)).step(batch())

    def targets(given: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {task: given[1][:, number] for number, task in enumerate(TASKS)}

    with pytest.raises(eq.InputError, match="of its head on the features"):
        optimizer_of(model(), eq.BayesAggMTL(**parts, targets=targets)).step(batch())


@pytest.mark.parametrize("options", [{"batched": 0}, {"features": "encoder"}], ids=["batched", "features"])
def test_other_ways_to_differentiate(options: dict[str, Any]) -> None:
    network = model()
    mtl = optimizer_of(network, eq.CAGrad(), **options)
    expected = own_gradients(network)
    mtl.step(batch())
    for task, place in zip(TASKS, network.flow.positions.learned, strict=True):
        assert torch.allclose(place.grad, expected[task], rtol=1e-5, atol=1e-8)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_drop_in_is_told_what_is_shared() -> None:
    network = model()
    expected = own_gradients(network)
    eq.backward(losses(network, batch()), eq.FairGrad(), shared=network.shared_parameters())
    twin = model()
    optimizer_of(twin, eq.FairGrad()).step(batch())
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-5, atol=1e-8)
    assert torch.allclose(network.flow.positions.learned[0].grad, expected["a"], rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("formulation", ["pareto", "paper", "released"])
def test_cost_moves_what_is_shared_and_leaves_positions(solver: Solver, formulation: str) -> None:
    network = model(solver=solver)
    cost = eager_cost(formulation=formulation)
    mtl = optimizer_of(network, eq.FairGrad(), teleport=cost)
    seen = []

    def moved(*_: Any) -> None:
        seen.append({name: value.detach().clone() for name, value in network.named_parameters()})

    mtl.step(batch())
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    # What the teleport made of it, before the torch optimizer steps.
    mtl.optimizer.register_step_pre_hook(moved)
    mtl.step(batch(1))
    expected = {name for name, _ in network.named_parameters() if not name.startswith(("heads.", "flow.positions."))}
    assert set(shared_by_name(mtl)) == expected
    assert [attempt.accepted for attempt in cost.attempts] == [True]
    changed = {name for name, value in before.items() if not torch.equal(value, seen[-1][name])}
    assert changed == {name for name in expected if name.endswith("weight")}  # low rank: matrices only


def test_cost_may_seek_agreement_by_second_derivatives() -> None:
    cost = eager_cost(formulation="paper", seek="mean")
    mtl = optimizer_of(model(), eq.FairGrad(), teleport=cost)
    for seed in range(3):
        mtl.step(batch(seed))
    assert any(attempt.accepted for attempt in cost.attempts)
    mtl = optimizer_of(model(solver=Solver(adjoint=True)), eq.FairGrad(), teleport=eager_cost(formulation="paper", seek="mean"))
    mtl.step(batch())
    with pytest.raises(eq.InputError, match="first derivatives only"):
        mtl.step(batch(1))


@pytest.mark.parametrize("solver", [Solver(), Solver(adjoint=True, step_size=0.5)], ids=["direct", "adjoint"])
def test_training_lowers_the_losses_and_moves_tasks_apart(solver: Solver) -> None:
    network = model(solver=solver, positions=LearnedPositions(TASKS, 1.0))
    optimizer = torch.optim.Adam(position_groups(network, lr=0.05), lr=0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(network, losses), optimizer, eq.FairGrad())
    before = sum(float(value.detach()) for value in losses(network, batch()).values())
    for _ in range(25):
        mtl.step(batch())
    after = sum(float(value.detach()) for value in losses(network, batch()).values())
    assert after < 0.8 * before
    assert len({round(place, 3) for place in network.flow.positions.values().values()}) == 3


def test_resumed_training_is_the_same_to_the_bit() -> None:
    def fresh() -> tuple[nn.Module, eq.MultiTaskOptimizer]:
        network = model()
        optimizer = torch.optim.Adam(position_groups(network, lr=0.05), lr=0.01)
        return network, eq.MultiTaskOptimizer(eq.Objective(network, losses), optimizer, eq.FAMO())

    straight, mtl = fresh()
    for step in range(6):
        mtl.step(batch(step))
        if step == 2:
            file = io.BytesIO()
            torch.save({"model": straight.state_dict(), "mtl": mtl.state_dict()}, file)
    resumed, again = fresh()
    file.seek(0)
    saved = torch.load(file)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["mtl"])
    for step in range(3, 6):
        again.step(batch(step))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("kind", [LearnedPositions, PositivePositions, FixedPositions])
def test_copies_pickles_and_state_dicts(kind: Any) -> None:
    network = model(positions=kind(TASKS, [0.5, 1.0, 1.5]))
    inputs = batch()[0]
    other = model(positions=kind(TASKS, 2.0))
    other.load_state_dict(network.state_dict())
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), other):
        assert all(torch.equal(a, b) for a, b in zip(network(inputs).values(), twin(inputs).values(), strict=True))
    assert other.flow.positions.values() == network.flow.positions.values()


@pytest.mark.parametrize("place", [1.0, 0.0, -0.8])
def test_a_single_task(place: float) -> None:
    flow = TaskFlow.for_vectors(["a"], 6, positions=LearnedPositions(["a"], place))
    network = NORMAL(nn.Linear(4, 6), flow, {"a": nn.Linear(6, 1)})

    def one(network: nn.Module, given: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"a": (network(given[0])["a"] - given[1][:, :1]).square().mean()}

    position = flow.positions.learned[0]
    (expected,) = torch.autograd.grad(one(network, batch())["a"], [position])
    mtl = eq.MultiTaskOptimizer(eq.Objective(network, one), torch.optim.SGD(network.parameters(), 0.1), eq.LS())
    mtl.step(batch())
    assert torch.allclose(position.grad, expected)
    assert float(position.detach()) == pytest.approx(place - 0.1 * float(expected))


@pytest.mark.parametrize("solver", SOLVERS)
def test_positions_alone_can_be_trained(solver: Solver) -> None:
    network = model(solver=solver)
    free = own_gradients(network)
    for part in (network.encoder, network.flow.dynamics, network.heads):
        part.requires_grad_(False)
    frozen = own_gradients(network)
    assert all(torch.allclose(free[task], frozen[task]) for task in TASKS)


def test_evaluation_without_gradients() -> None:
    network = model()
    expected = network(batch()[0])
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = network(batch()[0])
        assert all(torch.equal(found[task], expected[task]) and not found[task].requires_grad for task in TASKS)


def test_tasks_with_inputs_of_their_own() -> None:
    network = model()

    def apart(network: nn.Module, given: dict[str, Tensor]) -> dict[str, Any]:
        return {task: lambda task=task: network(given[task], tasks=[task])[task].square().mean() for task in TASKS}

    mtl = eq.MultiTaskOptimizer(eq.Objective(network, apart), torch.optim.SGD(network.parameters(), 0.1), eq.FairGrad())
    mtl.step({task: torch.randn(5, 4) for task in TASKS})
    assert len(mtl.shared) == 2 + 9
    assert all(place.grad is not None for place in network.flow.positions.learned)


def test_groups_give_positions_a_step_size_of_their_own() -> None:
    network = model()
    groups = position_groups(network, 0.5, betas=(0.8, 0.9))
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    rest, places = optimizer.param_groups
    assert (rest["lr"], rest["weight_decay"]) == (0.01, 0.1)
    assert (places["lr"], places["weight_decay"], places["betas"]) == (0.5, 0.0, (0.8, 0.9))
    assert places["params"] == list(network.flow.positions.parameters())
    assert len(rest["params"]) + 3 == len(list(network.parameters()))
    assert len(position_groups(model(positions=FixedPositions(TASKS)), 0.5)) == 1


def test_in_the_network_of_digits() -> None:
    base = DigitsNet()
    flow = TaskFlow.for_vectors(list(base.heads), 50)
    network = NORMAL(base.encoder, flow, base.heads)
    out = network(torch.zeros(7, 1, 12, 12))
    assert {task: tuple(value.shape) for task, value in out.items()} == {
        "left": (7, 10),
        "right": (7, 10),
        "sum": (7, 1),
        "ink": (7, 1),
    }
