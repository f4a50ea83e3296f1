"""The gradient engine: graph, rows, Gramian."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.engine.gradients import TaskGradients
from equipoise.engine.gramian import gramian
from equipoise.engine.graph import divide, divide_leaves, leaves, leaves_of_all
from tests.problems import Heads, batch, losses


def _flat(gradients: list[Tensor | None], parameters: list[Tensor]) -> Tensor:
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(gradients, parameters, strict=True)]
    )


@given(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=5))
def test_shared_leaves_are_those_that_two_losses_reach(uses: list[set[int]]) -> None:
    pool = [torch.randn(3, requires_grad=True) for _ in range(6)]
    trunk = {i: torch.tanh(leaf) for i, leaf in enumerate(pool)}
    values = [torch.stack([trunk[i].sum() for i in sorted(used)]).prod() for used in uses]
    shared, alone = divide(values)
    count = [sum(i in used for used in uses) for i in range(6)]
    assert {id(leaf) for leaf in shared} == {id(pool[i]) for i in range(6) if count[i] > 1}
    for used, own in zip(uses, alone, strict=True):
        assert {id(leaf) for leaf in own} == {id(pool[i]) for i in used if count[i] == 1}
    again, _ = divide_leaves([leaves(value) for value in values])
    assert {id(leaf) for leaf in again} == {id(leaf) for leaf in shared}
    assert {id(leaf) for leaf in leaves_of_all(values)} == {id(pool[i]) for i in range(6) if count[i] > 0}


def test_a_loss_that_is_a_leaf_reaches_itself() -> None:
    leaf = torch.zeros((), requires_grad=True)
    assert leaves(leaf) == [leaf]
    assert leaves(torch.zeros(())) == []


def test_rows_are_the_task_gradients() -> None:
    model = Heads()
    shared = list(model.encoder.parameters())
    values = list(losses(model, batch()).values())
    expected = torch.stack([_flat(list(torch.autograd.grad(value, shared, retain_graph=True)), shared) for value in values])
    engine = TaskGradients(shared, 3)
    with engine.recording():
        for row, value in enumerate(values):
            engine.differentiate(row, value, retain_graph=True)
    assert torch.equal(engine.compact(), expected)
    assert torch.allclose(engine.gramian(), expected.double() @ expected.double().T, rtol=1e-6)
    weights = torch.tensor([0.2, 0.5, 3.0])
    engine.deliver(engine.combine(weights))
    got = _flat([p.grad for p in shared], shared)
    assert torch.allclose(got, weights @ expected, rtol=1e-5, atol=1e-6)
    for k, head in enumerate(model.heads):
        (own,) = torch.autograd.grad(values[k], [head.weight])
        assert torch.equal(head.weight.grad, own)


def test_batched_differentiation_gives_the_same_rows() -> None:
    model = Heads(4)
    shared = list(model.encoder.parameters())
    data = batch(tasks=4)
    one, all_at_once, in_chunks = (TaskGradients(shared, 4) for _ in range(3))
    values = list(losses(model, data).values())
    with one.recording():
        for row, value in enumerate(values):
            one.differentiate(row, value, retain_graph=True)
    for engine, chunk in ((all_at_once, None), (in_chunks, 3)):
        with engine.recording():
            engine.differentiate_together(range(4), values, [None] * 4, chunk=chunk)
        assert torch.allclose(engine.rows, one.rows, rtol=1e-5, atol=1e-7)


def test_parameters_that_a_task_does_not_reach_have_zero_rows() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    x = torch.randn(4, 2)
    engine = TaskGradients([*a.parameters(), *b.parameters()], 2)
    for _ in range(2):  # the second time the rows hold old values
        with engine.recording():
            engine.differentiate(0, b(a(x)).mean(), retain_graph=False)
            engine.differentiate(1, a(x).mean(), retain_graph=False)
    rows = engine.compact()
    assert rows[1, 6:].abs().sum() == 0
    assert rows[0].abs().sum() > 0
    with engine.recording():
        engine.differentiate(1, a(x).mean(), retain_graph=False)
    assert engine.rows[0].abs().sum() == 0
    engine.deliver(engine.combine(torch.ones(2)))
    assert b.weight.grad is None


def test_rows_add_up_within_a_recording() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    engine = TaskGradients([weight], 1)
    with engine.recording():
        engine.differentiate(0, weight.square().sum(), retain_graph=False)
        engine.differentiate(0, weight.sum(), torch.tensor(3.0), retain_graph=False)
    assert torch.equal(engine.compact(), torch.tensor([[5.0, 7.0]]))


def test_a_weight_used_twice_gets_one_gradient() -> None:
    weight = nn.Parameter(torch.randn(3, 3))
    engine = TaskGradients([weight], 1)
    x = torch.randn(3)
    loss = (weight @ torch.tanh(weight @ x)).sum()
    (expected,) = torch.autograd.grad(loss, weight, retain_graph=True)
    with engine.recording():
        engine.differentiate(0, loss, retain_graph=False)
    assert torch.equal(engine.compact(), expected.reshape(1, -1))


def test_what_grad_held_before_is_added_to() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([10.0, 20.0])
    engine = TaskGradients([weight], 1)
    with engine.recording():
        engine.differentiate(0, weight.sum(), retain_graph=False)
    assert torch.equal(weight.grad, torch.tensor([10.0, 20.0]))
    engine.deliver(engine.combine(torch.ones(1)))
    assert torch.equal(weight.grad, torch.tensor([11.0, 21.0]))


def test_no_hook_stays_after_an_error() -> None:
    weight = nn.Parameter(torch.ones(2))
    engine = TaskGradients([weight], 1)
    with pytest.raises(ZeroDivisionError), engine.recording():
        raise ZeroDivisionError
    weight.sum().backward()
    assert torch.equal(weight.grad, torch.ones(2))


def test_memory_formats_and_precisions() -> None:
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    linear = nn.Linear(4, 2).double()
    x = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    loss = linear(conv(x).mean((2, 3)).double()).square().mean()
    shared = [*conv.parameters(), *linear.parameters()]
    expected = torch.autograd.grad(loss, shared, retain_graph=True)
    engine = TaskGradients(shared, 1)
    assert engine.rows.dtype == torch.float64
    with engine.recording():
        engine.differentiate(0, loss, retain_graph=False)
    engine.deliver(engine.combine(torch.ones(1)))
    for parameter, gradient in zip(shared, expected, strict=True):
        assert parameter.grad.dtype == parameter.dtype
        assert torch.allclose(parameter.grad, gradient)
    assert TaskGradients([conv.weight], 1)._views[0][0].is_contiguous(memory_format=torch.channels_last)


def test_directions_without_padding() -> None:
    shared = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))]
    engine = TaskGradients(shared, 2)
    with engine.recording():
        engine.differentiate(0, shared[0].square().sum() + shared[1].sum(), retain_graph=False)
        engine.differentiate(1, shared[1].square().sum(), retain_graph=False)
    assert engine.compact().shape == (2, 7)
    engine.deliver(engine.expand(engine.compact().sum(0)))
    assert torch.allclose(shared[0].grad, 2 * shared[0])
    assert torch.allclose(shared[1].grad, 1 + 2 * shared[1])


def test_a_buffer_serves_the_same_parameters_only() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    engine = TaskGradients([a], 2)
    assert engine.serves([a])
    assert not engine.serves([b])
    assert not engine.serves([a, b])
    a.data = a.data.double()
    assert not engine.serves([a])


def test_no_shared_parameters() -> None:
    """All of them may be frozen; the tasks' own have their gradients."""
    engine = TaskGradients([], 2)
    own = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    with engine.recording():
        for row, leaf in enumerate(own):
            engine.differentiate(row, (row + 1) * leaf.sum(), retain_graph=False)
    assert torch.equal(engine.gramian(), torch.zeros(2, 2, dtype=torch.float64))
    engine.deliver(engine.combine(torch.ones(2)))
    assert [leaf.grad.tolist() for leaf in own] == [[1, 1], [2, 2]]


@pytest.mark.parametrize("columns", [1, 2047, 2048, 5000, 200_000])
@pytest.mark.parametrize("tasks", [1, 2, 7, 40, 70])
def test_the_gramian_is_accurate_far_beyond_float32(columns: int, tasks: int) -> None:
    rows = torch.randn(tasks, columns) * torch.logspace(-6, 6, tasks)[:, None]
    exact = rows.double() @ rows.double().T
    scale = torch.outer(exact.diagonal(), exact.diagonal()).sqrt()
    assert ((gramian(rows) - exact).abs() / scale).max() < 5e-7


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e15, 1e30])
def test_the_gramian_of_gradients_whose_squares_leave_float32(scale: float) -> None:
    rows = torch.randn(3, 3000) * scale
    exact = rows.double() @ rows.double().T
    assert torch.allclose(gramian(rows), exact, rtol=1e-5)


def test_the_gramian_of_half_precision_rows_and_under_autocast() -> None:
    rows = torch.randn(2, 4096).bfloat16()
    assert torch.allclose(gramian(rows), rows.double() @ rows.double().T, rtol=1e-12)
    full = torch.randn(2, 4096)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gramian(full)
    assert torch.equal(inside, gramian(full))


def test_the_gramian_of_rows_with_infinities_is_not_finite() -> None:
    rows = torch.randn(2, 100)
    rows[1, 3] = float("inf")
    assert torch.isfinite(gramian(rows).diagonal()).tolist() == [True, False]


def test_rows_do_not_start_a_page_apart_and_nobody_notices() -> None:
    weight = nn.Parameter(torch.randn(32, 64))
    engine = TaskGradients([weight], 2)
    assert engine.rows.shape[1] % 1024 != 0
    with engine.recording():
        engine.differentiate(0, weight.square().sum(), retain_graph=False)
        engine.differentiate(1, weight.sum(), retain_graph=False)
    assert engine.compact().shape == (2, 2048)
    engine.deliver(engine.expand(engine.compact().sum(0)))
    assert torch.allclose(weight.grad, 2 * weight + 1)
