"""Gradients of positions are those of eq. 5.11, of everything else those of the solver or of the adjoint equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.nets import FixedPositions, HeavyBall, PositivePositions, Solver, TaskFlow
from tests.nets.flows import SIZE, TIGHT, batch, first, heavy, losses, model, positions, state_at, system

PLACES = (0.7, -1.2, 0.0, 0.7)


def features() -> Tensor:
    return torch.randn(4, SIZE, dtype=torch.float64)


def loss_of(z: Tensor) -> Tensor:
    """Something whose gradient differs at every entry."""
    return (z.sin() * torch.linspace(-1, 2, z.numel(), dtype=z.dtype).view_as(z)).sum() + z.square().mean()


def position_gradients(flow: TaskFlow, z: Tensor) -> list[float]:
    out = flow(z)
    total = sum(loss_of(out[task]) * (number + 1) for number, task in enumerate(flow.tasks))
    assert isinstance(total, Tensor)
    return [float(gradient) for gradient in torch.autograd.grad(total, list(flow.positions.parameters()))]


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("kind", [heavy, first])
def test_central_differences(kind: Callable[..., TaskFlow], adjoint: bool) -> None:
    z, width = features(), 1e-5
    got = position_gradients(kind(positions(*PLACES), replace(TIGHT, adjoint=adjoint)), z)
    for number, place in enumerate(PLACES):
        up, down = (loss_of(kind(positions(place + shift), TIGHT)(z)["t0"]) for shift in (width, -width))
        slope = float((up - down).detach()) / (2 * width) * (number + 1)
        assert got[number] == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_equation_5_11_to_the_last_digit(method: str, adjoint: bool) -> None:
    # −⟨∂L/∂z(p), q(p)⟩, with z(p) and q(p) as the solver has them, however coarse.
    z = features()
    flow = heavy(positions(*PLACES), Solver(method, step_size=0.4, adjoint=adjoint))
    states = flow.solver.states(flow.dynamics, flow.dynamics.start(z), PLACES)
    for number, (place, got) in enumerate(zip(PLACES, position_gradients(flow, z), strict=True)):
        at, momentum = (part.detach() for part in states[place])
        at.requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(at), [at])
        assert got == pytest.approx(-float((slope * momentum).sum()) * (number + 1), rel=1e-12, abs=1e-14)


def test_the_sign_of_the_thesis() -> None:
    # q is minus the velocity: with g = 0 and ξ = 0 the features leave 0 with the velocity −u(z(0)).
    u = nn.Linear(1, 1, bias=False).double()
    still = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        u.weight.fill_(1.0)
        still.weight.zero_()
    flow = TaskFlow(HeavyBall(u, still, damping=0.5).double(), positions(0.0, 1.0), TIGHT)
    z = torch.full((1, 1), 2.0, dtype=torch.float64)
    out = flow(z)
    assert float(out["t1"].detach()) == pytest.approx(2.0 - 2.0 * (1 - torch.e**-0.5) / 0.5)
    slopes = torch.autograd.grad(out["t0"].sum() + out["t1"].sum(), list(flow.positions.parameters()))
    assert [float(slope) for slope in slopes] == pytest.approx([-2.0, -2.0 * torch.e**-0.5])


def test_the_solver_itself_would_give_something_else() -> None:
    # Why times are kept out of torchdiffeq's graph: with the positions as its grid, a task's loss depends on them all.
    from torchdiffeq import odeint

    flow = heavy(positions(0.3, 1.0), Solver())
    z = features()
    first_place, second_place = flow.positions.parameters()
    times = torch.stack([torch.zeros_like(first_place), first_place, second_place])
    path = odeint(flow.dynamics, flow.dynamics.start(z), times, method="euler")[0]
    (foreign,) = torch.autograd.grad(loss_of(path[2]), [first_place])
    assert abs(float(foreign)) > 1e-3
    (none,) = torch.autograd.grad(loss_of(flow(z)["t1"]), [first_place], allow_unused=True)
    assert none is None


def test_positive_positions_by_the_chain_rule() -> None:
    z = features()
    free = heavy(positions(0.7, 1.4), TIGHT)
    positive = heavy(PositivePositions(["t0", "t1"], [0.7, 1.4]).double(), TIGHT)
    for place, bare, through in zip((0.7, 1.4), position_gradients(free, z), position_gradients(positive, z), strict=True):
        assert through == pytest.approx(place * bare, rel=1e-5)  # log and exp of a float32 start


def test_fixed_positions_have_no_gradient_and_cost_nothing() -> None:
    flow = heavy(FixedPositions(["t0", "t1"], [0.7, 1.4]).double(), Solver())
    assert list(flow.positions.parameters()) == []
    assert "positions.fixed" in flow.state_dict()
    learned = heavy(positions(0.7, 1.4), Solver())
    z = features()
    with torch.no_grad():
        flow.positions.fixed.copy_(torch.tensor([0.7, 1.4], dtype=torch.float64))
    assert all(torch.equal(flow(z)[task], learned(z)[task]) for task in flow.tasks)


@pytest.mark.parametrize("kind", [heavy, first])
def test_adjoint_and_direct_gradients_agree(kind: Callable[..., TaskFlow]) -> None:
    z = features().requires_grad_()
    found = []
    for adjoint in (False, True):
        flow = kind(positions(*PLACES), replace(TIGHT, adjoint=adjoint))
        total = sum(loss_of(out) for out in flow(z).values())
        found.append(torch.autograd.grad(total, [z, *flow.parameters()]))
    for direct, adjoined in zip(*found, strict=True):
        assert torch.allclose(direct, adjoined, rtol=1e-6, atol=1e-8)


def test_the_adjoint_of_a_fixed_step_tends_to_the_direct_gradient() -> None:
    z = features()

    def gap(step: float) -> float:
        grads = []
        for adjoint in (False, True):
            flow = heavy(positions(0.7, -1.2), Solver("rk4", step_size=step, adjoint=adjoint))
            total = sum(loss_of(out) for out in flow(z).values())
            grads.append(torch.cat([part.flatten() for part in torch.autograd.grad(total, list(flow.dynamics.parameters()))]))
        return float((grads[0] - grads[1]).abs().max())

    assert gap(0.05) < gap(0.2) / 40


def test_against_the_derivative_of_the_matrix_exponential() -> None:
    # ∂z(p)/∂z(0) for the linear flow, with q(0) = B z(0).
    z = features().requires_grad_()
    flow = heavy(positions(1.1), TIGHT)
    (got,) = torch.autograd.grad(flow(z)["t0"].sum(), [z])
    lift = torch.cat([torch.eye(SIZE, dtype=torch.float64), flow.dynamics.initial.weight.detach()])
    exact = (torch.linalg.matrix_exp(1.1 * system(flow))[:SIZE] @ lift).sum(0)
    assert torch.allclose(got, exact.expand_as(z), atol=1e-8)
    assert torch.allclose(flow(z)["t0"], state_at(flow, z, 1.1)[:, :SIZE], atol=1e-8)


def test_second_derivatives_across_position_and_parameters() -> None:
    # ∂/∂θ of eq. 5.11 against central differences of the parameters' gradient.
    z, width = features(), 1e-5
    flow = heavy(positions(0.9), TIGHT)
    weight, place = flow.dynamics.function.weight, flow.positions.learned[0]
    (slope,) = torch.autograd.grad(loss_of(flow(z)["t0"]), [place], create_graph=True)
    (mixed,) = torch.autograd.grad(slope, [weight])

    def gradient(at: float) -> Tensor:
        moved = heavy(positions(at), TIGHT)
        (found,) = torch.autograd.grad(loss_of(moved(z)["t0"]), [moved.dynamics.function.weight])
        return found

    assert torch.allclose(mixed, (gradient(0.9 + width) - gradient(0.9 - width)) / (2 * width), rtol=1e-5, atol=1e-7)


def test_the_adjoint_refuses_second_derivatives() -> None:
    flow = heavy(positions(0.9), Solver(adjoint=True))
    (slope,) = flow.positions.parameters()
    with pytest.raises(eq.InputError, match="first derivatives only"):
        torch.autograd.grad(loss_of(flow(features())["t0"]), [slope, *flow.dynamics.parameters()], create_graph=True)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_gradients_at_substituted_parameters(first_order: bool, adjoint: bool) -> None:
    # The adjoint method runs the equation in the backward pass, when the model has its own parameters again.
    here = model(first_order=first_order, solver=Solver("rk4", adjoint=adjoint))
    objective = eq.Objective(here, losses)
    generator = torch.Generator().manual_seed(5)
    moved = {}
    for name, value in here.named_parameters():
        moved[name] = (value + 0.1 * torch.randn(value.shape, generator=generator)).detach().requires_grad_()
    # Half of them are the result of a computation, as θ + Δθ is.
    given = {name: value * 1.0 if number % 2 else value for number, (name, value) in enumerate(moved.items())}
    total = sum(objective.at(given, batch()).values())
    assert isinstance(total, Tensor)
    got = torch.autograd.grad(total, list(moved.values()))

    there = model(first_order=first_order, solver=Solver("rk4", adjoint=adjoint))
    there.load_state_dict({name: value.detach() for name, value in moved.items()})
    expected = sum(losses(there, batch()).values())
    assert isinstance(expected, Tensor)
    assert torch.equal(total, expected)
    for a, b in zip(got, torch.autograd.grad(expected, list(there.parameters())), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
    assert all(parameter.grad is None for parameter in here.parameters())
