"""NORMAL compiled and exported: few graphs while positions move, one where they stay, the numbers of the code run eagerly."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

import equipoise as eq
from equipoise.nets import NORMAL, FixedPositions, LearnedPositions, Solver, TaskFlow
from tests.nets.flows import TASKS, batch, losses, model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch.*")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("places", [[0.7, 1.3, -0.4], [1.0, 1.0, 1.0], [0.0, -0.25, -1.1]])
def test_a_compiled_flow_gives_what_it_gives_eagerly(places: list[float], first_order: bool) -> None:
    plain = model(positions=LearnedPositions(TASKS, places), first_order=first_order)
    other = deepcopy(plain)
    compiled = torch.compile(other, backend="eager")
    inputs = batch()[0]
    for network in (plain, compiled):
        sum(out.square().sum() for out in network(inputs).values()).backward()
    for task, out in plain(inputs).items():
        torch.testing.assert_close(compiled(inputs)[task], out)
    for (name, mine), theirs in zip(other.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


def test_positions_that_move_need_few_graphs() -> None:
    counter = CompileCounter()
    network = model()
    compiled = torch.compile(network, backend=counter)
    mtl = eq.MultiTaskOptimizer(eq.Objective(compiled, losses), torch.optim.SGD(network.parameters(), 0.01), eq.FairGrad())
    for step in range(40):
        mtl.step(batch(step))
        with torch.no_grad():  # from 0.7 to 3.9 and from −0.4 to −2: 16 numbers of steps, were each a graph of its own
            network.flow.positions.learned[0] += 0.08
            network.flow.positions.learned[2] -= 0.04
    # The part before the positions are read, and the part after it for 8 and 16 steps ahead and 2, 4 and 8 behind.
    assert counter.frame_count <= 10
    wrong = network.flow.positions.learned[1]
    with torch.no_grad():
        wrong.fill_(float("nan"))
    with pytest.raises(eq.errors.InputError, match="a task position is nan"):
        compiled(batch()[0])


def test_frozen_positions_are_one_graph_that_can_be_exported() -> None:
    network = model().eval()
    inputs = batch()[0]
    expected = network(inputs)
    frozen = network.frozen()
    assert not frozen.training
    assert next(frozen.encoder.parameters()) is next(network.encoder.parameters())
    counter = CompileCounter()
    whole = torch.compile(frozen, backend=counter, fullgraph=True)
    program = torch.export.export(frozen, (inputs,), dynamic_shapes=(({0: torch.export.Dim("rows")},),))
    for task, out in expected.items():
        torch.testing.assert_close(whole(inputs)[task], out)
        torch.testing.assert_close(program.module()(inputs)[task], out)
        torch.testing.assert_close(program.module()(inputs[:5])[task], out[:5])
    assert counter.frame_count == 1
    with torch.no_grad():
        network.flow.positions.learned[0] += 1.0
    assert frozen.flow.positions.values() != network.flow.positions.values()


def test_frozen_positions_keep_their_precision() -> None:
    flow = TaskFlow.for_vectors(["a", "b"], 4).double()
    with torch.no_grad():
        flow.positions.learned[0].fill_(0.1)
    features = torch.randn(3, 4, dtype=torch.float64)
    frozen = flow.frozen()
    assert frozen.positions.fixed.dtype == torch.float64
    torch.testing.assert_close(frozen(features)["a"], flow(features)["a"], rtol=1e-14, atol=1e-14)


def test_loaded_positions_are_those_of_the_next_graph() -> None:
    flow = TaskFlow.for_vectors(["a"], 4, positions=FixedPositions(["a"], 1.0))
    other = TaskFlow.for_vectors(["a"], 4, positions=FixedPositions(["a"], 2.0))
    flow.load_state_dict(other.state_dict())
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.compile(flow, backend="eager")(z)["a"], other(z)["a"])


def test_fixed_positions_round_alike_in_half_precision() -> None:
    flow = TaskFlow.for_vectors(TASKS, 4, positions=FixedPositions(TASKS, [0.7, 1.3, -0.4])).bfloat16()
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    eager = flow(z)
    for task, out in torch.compile(flow, backend="eager")(z).items():
        assert torch.equal(out, eager[task])


class _Reads(TorchDispatchMode):
    """Counts what a GPU's host would have to wait for: values that are read, and numbers that are copied over."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("places", [[1.0], [0.1, 0.3, 0.6, 0.9, 1.2, 1.4, 1.7]])
def test_the_host_does_not_wait_for_every_task(places: list[float]) -> None:
    tasks = [f"t{number}" for number in range(len(places))]
    flow = TaskFlow.for_vectors(tasks, 4, positions=LearnedPositions(tasks, places))
    with _Reads() as reads:
        flow(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert reads.count == 0  # but for tolist(), which reads all positions at once and passes no dispatcher


def test_mixed_precision_keeps_the_flow_in_single_precision() -> None:
    network = model()
    inputs = batch()[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(inputs)
    for task, out in network(inputs).items():
        torch.testing.assert_close(mixed[task].float(), out, rtol=0.1, atol=0.1)
    sum(out.float().sum() for out in mixed.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_other_solvers_compile_too() -> None:
    network = model(solver=Solver("rk4"))
    assert isinstance(network, NORMAL)
    inputs = batch()[0]
    compiled = torch.compile(network, backend="eager")
    for task, out in network(inputs).items():
        torch.testing.assert_close(compiled(inputs)[task], out)
