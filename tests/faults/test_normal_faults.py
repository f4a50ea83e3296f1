"""NORMAL in half precision, on a GPU's time, and with batches that are not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import equipoise as eq
from equipoise.nets import NORMAL, LearnedPositions, Positions, PositivePositions, Solver, TaskFlow
from equipoise.nets.normal.positions import FixedPositions

pytest.importorskip("torchdiffeq")
HALF = [torch.bfloat16, torch.float16]
Batch = tuple[Tensor, Tensor]


def model(solver: Solver | None = None, tasks: int = 2, **options: Any) -> NORMAL:
    torch.manual_seed(0)
    names = [f"t{k}" for k in range(tasks)]
    places = LearnedPositions(names, [0.5 + k / 4 for k in range(tasks)])
    flow = TaskFlow.for_vectors(names, 4, positions=places, solver=solver, **options)
    return NORMAL(nn.Linear(3, 4), flow, {name: nn.Linear(4, 1) for name in names})


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    inputs, targets = batch
    return {name: (out[:, 0] - targets[:, k]).square().mean() for k, (name, out) in enumerate(model(inputs).items())}


def batch(dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, generator=generator).to(dtype), torch.randn(6, 2, generator=generator).to(dtype)


def optimizer(network: nn.Module, **options: Any) -> eq.MultiTaskOptimizer:
    return eq.MultiTaskOptimizer(
        eq.Objective(network, losses), torch.optim.SGD(network.parameters(), 0.1), "fairgrad", **options
    )


SOLVERS = {
    "euler": Solver(),
    "rk4": Solver("rk4"),
    "dopri5": Solver("dopri5", rtol=1e-2, atol=1e-2),
    "euler, adjoint": Solver(adjoint=True),
    "dopri5, adjoint": Solver("dopri5", rtol=1e-2, atol=1e-2, adjoint=True),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_a_model_cast_to_half_precision(dtype: torch.dtype, first_order: bool, solver: str) -> None:
    """Features and gradients are those of float32, as far as half precision tells."""
    narrow = model(SOLVERS[solver], first_order=first_order).to(dtype)
    wide = model(SOLVERS[solver], first_order=first_order)
    wide.load_state_dict({name: value.float() for name, value in narrow.state_dict().items()})
    inputs, targets = batch(dtype)
    features = narrow.flow(narrow.encoder(inputs))
    assert all(z.dtype == dtype for z in features.values())
    for name, out in narrow(inputs).items():
        assert out.dtype == dtype
        assert torch.allclose(out.float(), wide(inputs.float())[name], atol=0.05)
    sum(losses(narrow, (inputs, targets)).values()).backward()
    sum(losses(wide, (inputs.float(), targets.float())).values()).backward()
    for mine, its in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert mine.grad.dtype == dtype
        assert torch.allclose(mine.grad.float(), its.grad, rtol=0.2, atol=0.05)


@pytest.mark.parametrize("dtype", HALF)
def test_a_step_in_half_precision(dtype: torch.dtype) -> None:
    network = model().to(dtype)
    before = [parameter.clone() for parameter in network.parameters()]
    mtl = optimizer(network)
    mtl.step(batch(dtype))
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_wide_features_stay_wide() -> None:
    network = model()
    inputs, _ = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(z.dtype == torch.float32 for z in network.flow(network.encoder(inputs)).values())


class Waiting(TorchDispatchMode):
    """Counts where a number is taken out of a tensor, for which the host would wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [LearnedPositions, PositivePositions, FixedPositions])
def test_positions_are_read_at_once(kind: type[Positions], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of tasks; what torchdiffeq waits for is its own."""
    names = [f"t{k}" for k in range(20)]
    flow = TaskFlow.for_vectors(names, 4, positions=kind(names, [0.5 + k / 8 for k in range(20)]))

    def states(self: Solver, dynamics: Any, start: Any, times: list[float]) -> dict[float, Any]:
        assert len(set(times)) == 20
        return dict.fromkeys(times, start)

    monkeypatch.setattr(Solver, "states", states)
    with Waiting() as waiting:
        flow(torch.randn(6, 4))
    assert waiting.count <= 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_batch_that_is_not_finite(solver: str, value: float) -> None:
    network = model(SOLVERS[solver])
    mtl = optimizer(network)
    mtl.step(batch())
    before = [parameter.clone() for parameter in network.parameters()]
    inputs, targets = batch()
    inputs[0, 0] = value
    with pytest.raises(eq.NonFiniteError, match="loss of task") as raised:
        mtl.step((inputs, targets))
    assert raised.value.tasks == ("t0", "t1")
    assert raised.value.step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("solver", ["dopri5", "dopri5, adjoint"])
def test_an_equation_that_is_not_finite(solver: str) -> None:
    """Weights that are not finite are no fault of the solver's settings either."""
    network = model(SOLVERS[solver])
    with torch.no_grad():
        network.flow.dynamics.function[0].weight[0, 0] = math.nan
    with pytest.raises(eq.NonFiniteError, match="loss of task"):
        optimizer(network).step(batch())


def test_no_sample_gets_features_from_a_solver_that_gave_up() -> None:
    network = model(SOLVERS["dopri5"])
    inputs, _ = batch()
    inputs[0, 0] = math.nan
    assert all(bool(out.isnan().all()) for out in network(inputs).values())


def test_a_solver_that_gives_up_on_finite_numbers_is_still_told() -> None:
    network = model(Solver("dopri5", options={"max_num_steps": 2}, rtol=1e-9, atol=1e-9))
    with pytest.raises(eq.InputError, match=r"dopri5 cannot integrate the flow to .*max_num_steps exceeded"):
        network(batch()[0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_gradient_that_is_not_finite(solver: str) -> None:
    """The losses are finite; of two tasks the one to blame is named, and the other's gradient is its own."""
    network = model(SOLVERS[solver])
    mtl = optimizer(network)

    def steep(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        found = losses(model, batch)
        return found | {"t1": found["t1"] + (found["t1"] * 0).sqrt()}

    mtl.objective.losses = steep
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(eq.NonFiniteError, match=r'gradient of task "t1"'):
        mtl.step(batch())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("solver", ["dopri5", "dopri5, adjoint"])
def test_a_scaler_s_overflow_is_skipped(solver: str) -> None:
    network = model(SOLVERS[solver])
    mtl = optimizer(network, scaler=torch.amp.GradScaler("cpu", init_scale=1e38))
    inputs, targets = batch()
    mtl.step((inputs, 1e3 * targets))
    assert mtl.last.skipped
    assert mtl.scaler.get_scale() < 1e38
