"""The drop-in, in place of ``sum(losses).backward()``."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import equipoise as eq
from equipoise.dropin import _known
from tests.problems import METHODS, Heads, balancer_of, batch, losses, optimizer_of, parameters_of, same


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_loop_of_ones_own_takes_the_same_steps(name: str, declared: bool) -> None:
    if name == "graddrop" and not declared:
        pytest.skip("it draws a number an entry, and the entries are found in another order")
    mtl = optimizer_of(name, lr=0.005)
    torch.manual_seed(0)
    model = Heads()
    sgd, balancer = torch.optim.SGD(model.parameters(), lr=0.005), balancer_of(name)
    for step in range(5):
        mtl.step(batch(seed=step))
        sgd.zero_grad()
        before = losses(model, batch(seed=step))
        report = eq.backward(before, balancer, shared=model.encoder.parameters() if declared else None)
        assert torch.allclose(report.losses, mtl.last.losses, rtol=1e-4)
        sgd.step()
        if balancer.watches:
            with torch.no_grad():
                after = torch.stack(list(losses(model, batch(seed=step)).values()))
            balancer.observe(report.losses, after, (0, 1, 2))
    # The order of the parameters, and so of the terms of the Gramian, is not the same.
    assert same(parameters_of(mtl.objective.model), parameters_of(model), rtol=1e-4, atol=1e-6)


def test_it_adds_to_grad_as_backward_does() -> None:
    for name in ("ls", "mgda"):
        model, balancer = Heads(), eq.balancer(name)
        eq.backward(losses(model, batch()), balancer)
        once = {n: p.grad.clone() for n, p in model.named_parameters()}
        eq.backward(losses(model, batch()), balancer)
        assert all(torch.allclose(p.grad, 2 * once[n], rtol=1e-5, atol=1e-7) for n, p in model.named_parameters())


def test_lists_vectors_and_mappings() -> None:
    results = []
    for form in (lambda d: d, lambda d: list(d.values()), lambda d: torch.stack(list(d.values()))):
        torch.manual_seed(0)
        model = Heads()
        report = eq.backward(form(losses(model, batch())), eq.MGDA())
        results.append({n: p.grad for n, p in model.named_parameters()})
    assert report.tasks == ("task0", "task1", "task2")
    assert same(results[0], results[1])
    assert same(results[0], results[2], rtol=1e-5, atol=1e-7)


def test_a_subset_of_the_tasks_by_name() -> None:
    model, balancer = Heads(), eq.FAMO()
    eq.backward(losses(model, batch()), balancer)
    some = losses(model, batch())
    del some["t1"]
    assert eq.backward(some, balancer).tasks == ("t0", "t2")
    with pytest.raises(eq.errors.UnknownTaskError):
        eq.backward({"t9": losses(model, batch())["t0"]}, balancer)
    with pytest.raises(eq.InputError, match="2 losses without names for 3 declared tasks"):
        eq.backward(list(some.values()), balancer)


def test_tasks_can_be_declared() -> None:
    model, balancer = Heads(), eq.FAMO()
    some = losses(model, batch())
    del some["t1"]
    assert eq.backward(some, balancer, tasks=["t0", "t1", "t2"]).tasks == ("t0", "t2")
    assert eq.backward(losses(model, batch()), balancer).tasks == ("t0", "t1", "t2")
    with pytest.raises(eq.InputError, match="tasks are t0, t1, t2, not a, b; make a new balancer"):
        eq.backward(losses(model, batch()), balancer, tasks=["a", "b"])


def test_callables() -> None:
    torch.manual_seed(0)
    eager = Heads()
    late = Heads()
    late.load_state_dict(eager.state_dict())
    for name in ("si", "ls", "mgda"):
        eq.backward(losses(eager, batch()), eq.balancer(name))
        eq.backward({t: lambda t=t: losses(late, batch())[t] for t in ("t0", "t1", "t2")}, eq.balancer(name))
    assert all(
        torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6) for a, b in zip(eager.parameters(), late.parameters(), strict=True)
    )


def test_names_of_balancers_with_a_memory_are_refused() -> None:
    model = Heads()
    eq.backward(losses(model, batch()), "mgda")
    with pytest.raises(eq.InputError, match='"famo" has a memory'):
        eq.backward(losses(model, batch()), "famo")


def test_a_loss_that_is_not_finite_leaves_grad_alone() -> None:
    for name in ("ls", "mgda"):
        model = Heads()
        values = losses(model, batch())
        values["t1"] = values["t1"] * float("nan")
        with pytest.raises(eq.NonFiniteError, match='loss of task "t1"'):
            eq.backward(values, eq.balancer(name))
        assert all(p.grad is None for p in model.parameters())


def test_buffers_go_with_their_balancer() -> None:
    balancer = eq.MGDA()
    eq.backward(losses(Heads(), batch()), balancer)
    reference = weakref.ref(_known[id(balancer)])
    del balancer
    gc.collect()
    assert reference() is None


def test_the_buffer_is_used_again() -> None:
    balancer, model = eq.MGDA(), Heads()
    pointers = set()
    for _ in range(3):
        eq.backward(losses(model, batch()), balancer)
        pointers.add(_known[id(balancer)]._by_gradients.buffer.engine.rows.data_ptr())
    assert len(pointers) == 1
