"""What flows is what the equation says: closed forms, orders of convergence, and no influence of one position on another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.nets import FirstOrder, HeavyBall, LearnedPositions, Solver, TaskFlow
from tests.nets.flows import SIZE, TIGHT, first, heavy, linear, positions, state_at, system

PLACES = (0.7, -1.2, 2.0, 0.0, 0.7)


def features() -> Tensor:
    return torch.randn(4, SIZE, dtype=torch.float64)


@pytest.mark.parametrize("kind", [heavy, first])
@pytest.mark.parametrize(
    ("method", "tolerance", "error"),
    # Between the steps torchdiffeq interpolates, for most methods with a larger error than that of the steps.
    [
        ("dopri5", 1e-10, 1e-8),
        ("dopri8", 1e-11, 1e-5),
        ("bosh3", 1e-6, 1e-2),
        ("fehlberg2", 1e-6, 1e-2),
        ("adaptive_heun", 1e-4, 1e-2),
    ],
)
def test_adaptive_solvers_reach_the_matrix_exponential(
    kind: Callable[..., TaskFlow], method: str, tolerance: float, error: float
) -> None:
    flow, z = kind(positions(*PLACES), Solver(method, rtol=tolerance, atol=tolerance)), features()
    for place, got in zip(PLACES, flow(z).values(), strict=True):
        assert torch.allclose(got, state_at(flow, z, place)[:, :SIZE], rtol=0, atol=error)


@pytest.mark.parametrize("kind", [heavy, first])
@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1), ("midpoint", 2), ("heun3", 3), ("rk4", 4), ("explicit_adams", 3), ("implicit_adams", 3)]
)
def test_fixed_steps_converge_with_their_order(kind: Callable[..., TaskFlow], method: str, order: int) -> None:
    z = features()
    places = (0.7, -1.2)  # between grid points of every step below

    def error(step: float) -> float:
        flow = kind(positions(*places), Solver(method, step_size=step))
        pairs = zip(places, flow(z).values(), strict=True)
        return max(float((got - state_at(flow, z, place)[:, :SIZE]).detach().abs().max()) for place, got in pairs)

    coarse, fine = error(0.16), error(0.02)
    assert coarse < 0.5
    assert fine < coarse / 8 ** (order - 0.6)  # interpolation moves the constants a little


@pytest.mark.parametrize("kind", [heavy, first])
@pytest.mark.parametrize("place", [0.25, 0.6, 0.75, -0.6, 1e-3, -1e-3])
def test_eulers_method_by_hand(kind: Callable[..., TaskFlow], place: float) -> None:
    flow, z = kind(positions(place), Solver(step_size=0.25)), features()
    state = torch.cat(flow.dynamics.start(z), dim=1).detach()
    step = 0.25 if place > 0 else -0.25
    done = 0.0
    while abs(done + step) <= abs(place):
        state = state + step * state @ system(flow).T
        done += step
    state = state + (place - done) * state @ system(flow).T  # the last step is shorter
    assert torch.allclose(flow(z)["t0"], state[:, :SIZE], rtol=0, atol=1e-14)


def test_damping_and_spring_as_one_oscillator() -> None:
    # One feature, g = 0: z″ + γ z′ + ξ z = 0, with z(0) = 1 and z′(0) = −u(1) = −0.5.
    u, g = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        u.weight.fill_(0.5)
        g.weight.zero_()
    flow = TaskFlow(HeavyBall(u, g, xi=2.0, damping=0.2).double(), positions(1.3), TIGHT)
    decay, pitch = 0.1, (2.0 - 0.01) ** 0.5
    time = torch.tensor(1.3, dtype=torch.float64)
    waves = torch.cos(pitch * time) + (decay - 0.5) / pitch * torch.sin(pitch * time)
    assert torch.allclose(flow(torch.ones(1, 1, dtype=torch.float64))["t0"], torch.exp(-decay * time) * waves, atol=1e-9)


@settings(max_examples=20)
@given(own=st.floats(-2, 2), others=st.lists(st.floats(-3, 3), max_size=3), method=st.sampled_from(["euler", "rk4", "dopri5"]))
def test_where_the_others_sit_makes_no_difference(own: float, others: list[float], method: str) -> None:
    z = torch.randn(2, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = Solver(method, step_size=0.3, rtol=1e-3)
    alone = heavy(positions(own), solver)(z)["t0"]
    for among in ([own, *others], [*others, own], [own, own, *others]):
        got = heavy(positions(*among), solver)(z)
        for number, place in enumerate(among):
            if place == own:
                assert torch.equal(got[f"t{number}"], alone)


@pytest.mark.parametrize("solver", [Solver(), Solver("rk4"), Solver("dopri5"), Solver(adjoint=True)])
def test_a_task_at_zero_gets_the_features(solver: Solver) -> None:
    for places in ([0.0], [0.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-0.0, 1.0, -1.0]):
        z = features()
        flow = heavy(positions(*places), solver)
        out = flow(z)["t0"]
        assert torch.equal(out, z)
        # It still shares the flow, or it would look as if a neighbour had the flow to itself.
        gradients = torch.autograd.grad(out.sum(), list(flow.dynamics.parameters()))
        assert all(not gradient.any() for gradient in gradients)


def test_a_grid_of_awkward_steps() -> None:
    # 0.1 · 3 is above 0.3, 0.1 · 10 is not above 1: no step is left out and none is empty.
    for place in (0.3, 1.0, 0.30000000000000004, 0.29999999999999993):
        calls: list[float] = []

        class Counting(nn.Module):
            def forward(self, z: Tensor, time: Tensor, calls: list[float] = calls) -> Tensor:
                calls.append(time.item())
                return torch.zeros_like(z)

        dynamics = HeavyBall(linear(1), Counting(), timed=True).double()
        TaskFlow(dynamics, positions(place), Solver(step_size=0.1))(features())
        gaps = torch.tensor(calls).diff()
        assert torch.allclose(gaps, torch.full_like(gaps, 0.1))
        assert place - 0.1 - 1e-15 <= calls[-1] < place


def test_time_reaches_a_timed_function_on_both_sides() -> None:
    class Clock(nn.Module):
        def forward(self, z: Tensor, time: Tensor) -> Tensor:
            return torch.ones_like(z) * 2 * time

    flow = TaskFlow(FirstOrder(Clock(), timed=True), positions(1.5, -0.5), TIGHT)
    out = flow(torch.zeros(1, 1, dtype=torch.float64))
    assert torch.allclose(out["t0"], torch.tensor(1.5**2, dtype=torch.float64))
    assert torch.allclose(out["t1"], torch.tensor(0.5**2, dtype=torch.float64))
    (slope,) = torch.autograd.grad(out["t1"].sum(), [flow.positions.learned[1]])
    assert torch.allclose(slope, torch.tensor(-1.0, dtype=torch.float64))


def test_maps_and_vectors() -> None:
    maps = TaskFlow.for_maps(["t0"], 5, xi=0.3)
    grid = torch.randn(2, 5, 3, 4)
    out = maps(grid)["t0"]
    assert out.shape == grid.shape
    # A 1×1 convolution treats every place alike: the same as a flow of vectors with the same weights.
    vectors = TaskFlow.for_vectors(["t0"], 5, xi=0.3)
    state = {name: value.flatten(1) if value.dim() == 4 else value for name, value in maps.state_dict().items()}
    vectors.load_state_dict(state)
    assert torch.allclose(vectors(grid.movedim(1, -1))["t0"].movedim(-1, 1), out, atol=1e-6)
    assert TaskFlow.for_maps(["t0"], 5, first_order=True)(grid)["t0"].shape == grid.shape


def test_parameters_of_the_thesis_blocks() -> None:
    with torch.device("meta"):
        celeba = TaskFlow.for_vectors([f"t{number}" for number in range(40)], 2048)
        nyu = TaskFlow.for_maps(["seg", "depth", "normal"], 512)
    size = 2048 * 2048 + 2048
    assert sum(parameter.numel() for parameter in celeba.parameters()) == 4 * size + 1 + 40
    assert sum(parameter.numel() for parameter in nyu.parameters()) == 4 * (512 * 512 + 512) + 1 + 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_integrated_in_float32(dtype: torch.dtype) -> None:
    flow = TaskFlow.for_vectors(["t0"], 4)
    z = torch.randn(3, 4).to(dtype)
    assert torch.equal(flow(z)["t0"], flow(z.float())["t0"])
    assert flow(z)["t0"].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = flow(z)["t0"]
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, flow(z)["t0"], atol=0.05)


def test_only_the_wanted_tasks_are_followed() -> None:
    flow = TaskFlow.for_vectors(["near", "far"], 4, positions=LearnedPositions(["near", "far"], [0.2, 50.0]))
    z = torch.randn(3, 4)
    out = flow(z, ["near"])
    assert list(out) == ["near"]
    assert torch.equal(out["near"], flow(z)["near"])
    assert flow(z, []) == {}
    assert list(flow(z, ["far", "near"])) == ["far", "near"]
