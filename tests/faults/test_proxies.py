"""Proxy Gramians and the balanced loss where graphs are made in unusual ways: never silently wrong."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.engine.heads import HeadCut


def flows_of(losses: dict[int, Tensor], shared: list[Tensor]) -> dict[int, list[Tensor]]:
    """Each task's gradient by way of the cut."""
    from equipoise.engine.heads import gradients_at

    cut = HeadCut(losses, shared)
    flows, _, _ = cut.differentiate(dict.fromkeys(losses))
    return {k: gradients_at(cut.edges, [flow.get(k) for flow in flows], shared) for k in losses}  # type: ignore[misc]


def check_flows(losses: dict[int, Tensor], shared: list[Tensor]) -> None:
    found = flows_of(losses, shared)
    for position, loss in losses.items():
        right = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        for ours, theirs in zip(found[position], right, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_views_of_what_changed_in_place_have_later_numbers_than_what_takes_them() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 3))
    hidden = torch.randn(4, 3) @ weight
    view = hidden[0]
    hidden.mul_(2)
    first = (view * 3).sum()  # its node is older than that of the view
    check_flows({0: first, 1: (view * 5).sin().sum(), 2: hidden.cos().sum()}, [weight])


def test_graphs_made_by_several_threads_have_several_countings() -> None:
    torch.manual_seed(0)
    weight, second = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3, 3))
    hidden = torch.randn(4, 3) @ weight
    found: dict[int, Tensor] = {}

    def force() -> None:
        found[0] = hidden.sin() @ second

    thread = threading.Thread(target=force)
    thread.start()
    thread.join()
    late = (hidden * 1.0).cos()  # reached by task 2 first, and below what the thread made
    losses = {0: found[0].sum(), 1: found[0].square().sum(), 2: (late @ second).sum() + hidden.square().sum()}
    HeadCut(losses)
    check_flows(losses, [weight, second])


class Wide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, taken: Tensor) -> Tensor:
        return taken.double()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[:1].expand(3, -1, -1)  # autograd sums it up, and makes it single precision


def test_gradients_are_taken_as_autograd_hands_them_on() -> None:
    weight = nn.Parameter(torch.randn(1, 3, 3))
    hidden = weight.sin()
    losses = {0: Wide.apply(hidden).sum(), 1: hidden.square().sum(), 2: (Wide.apply(hidden) * 2.0).sum()}
    check_flows(losses, [weight])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))

    def features(self) -> Tensor:
        return self.encoder(torch.linspace(-1, 1, 32).reshape(8, 4))

    def losses(self, features: Tensor, tasks: str = "abc") -> dict[str, Tensor]:
        return {
            t: (head(features).sin() - 0.3 * k).square().mean()
            for k, (t, head) in enumerate(zip("abc", self.heads, strict=True))
            if t in tasks
        }


def grads(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def test_what_is_added_to_a_balanced_loss_keeps_its_gradient() -> None:
    net = Net()
    features = net.features()
    losses = net.losses(features)
    loss = eq.balanced_loss(losses, eq.FairGrad(), heads="own")
    penalty = 0.1 * features.square().sum()
    encoder = list(net.encoder.parameters())
    weights = dict(zip("abc", loss.report.weights.tolist(), strict=True))
    right = [
        sum(p) for p in zip(grads(penalty, encoder), *(grads(w * losses[t], encoder) for t, w in weights.items()), strict=True)
    ]
    (loss + penalty).backward(retain_graph=True)
    for parameter, gradient in zip(encoder, right, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    for k, task in enumerate("abc"):
        for parameter, gradient in zip(
            net.heads[k].parameters(), grads(losses[task], list(net.heads[k].parameters())), strict=True
        ):
            torch.testing.assert_close(parameter.grad, gradient)
    # A loss differentiated afterwards, and a second balanced loss of the same graph, know nothing of the weights of the first.
    plain = eq.balanced_loss(losses, eq.FairGrad(), heads="weighted")
    for a, b in zip(grads(losses["a"], encoder), grads(net.losses(net.features())["a"], encoder), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(grads(plain, encoder), right, strict=True):
        assert a.shape == b.shape
    expected = [sum(p) for p in zip(*(grads(w * losses[t], encoder) for t, w in weights.items()), strict=True)]
    for a, b in zip(grads(plain, encoder), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_weights_that_span_decades_lose_no_precision_in_double_or_half() -> None:
    from equipoise.step.proxying import HeadGradients

    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)):
        hidden = torch.randn(5, dtype=dtype).requires_grad_()
        losses = {0: (hidden * 3).sum(), 1: (hidden * 5).sum()}
        weights = {0: 1 / 3, 1: 1e-9 if dtype != torch.float16 else 3e-8}
        heads = HeadGradients(losses, dict.fromkeys(losses), [hidden])
        heads.differentiate({}, own=False)
        _, (found,) = heads.weighted(weights)
        right = 3 * weights[0] + 5 * weights[1]
        assert abs(float(found.double()[0]) / right - 1) < tolerance
    tiny = HeadGradients(losses, {0: torch.zeros(()).half(), 1: torch.full((), 8000.0).half()}, [hidden])
    tiny.differentiate({}, own=False)
    _, (found,) = tiny.weighted({0: 1.0, 1: 2e-9})
    assert float(found[0]) > 0  # 2e-9 is nothing in half precision; 2e-9 * 40000 is not


def test_heads_of_batches_that_lack_tasks_are_told_from_what_is_shared() -> None:
    for early in (True, False):
        net, balancer = Net(), eq.FairGrad()
        options: dict[str, Any] = {"heads": "own", "tasks": ("a", "b", "c")}
        if early:
            with pytest.raises(eq.InputError, match="begin with a batch that holds all tasks"):
                eq.balanced_loss(net.losses(net.features(), "a"), balancer, **options)
            eq.balanced_loss(net.losses(net.features()), balancer, **options)
        else:
            options["shared"] = net.encoder
        losses = net.losses(net.features(), "a")
        loss = eq.balanced_loss(losses, balancer, **options)
        loss.backward(retain_graph=True)
        weight = float(loss.report.weights)
        assert abs(weight - 1) > 1e-3
        for parameter, g in zip(net.encoder.parameters(), grads(losses["a"], list(net.encoder.parameters())), strict=True):
            torch.testing.assert_close(parameter.grad, weight * g)
        for parameter, g in zip(net.heads[0].parameters(), grads(losses["a"], list(net.heads[0].parameters())), strict=True):
            torch.testing.assert_close(parameter.grad, g)


def test_weights_that_one_task_takes_again_above_the_cut_are_shared() -> None:
    net = Net()
    features = net.features()
    losses = net.losses(features)
    losses["c"] = losses["c"] + (features @ net.encoder[2].weight).square().mean()
    loss = eq.balanced_loss(losses, eq.FairGrad(), eq.Proxy("last", audit=1), heads="own")
    weights = dict(zip("abc", loss.report.weights.tolist(), strict=True))
    encoder = list(net.encoder.parameters())
    rows = torch.stack([torch.cat([g.flatten() for g in grads(losses[t], encoder)]) for t in "abc"]).double()
    torch.testing.assert_close(loss.report.gramian, rows @ rows.T, rtol=1e-4, atol=1e-8)
    right = [sum(p) for p in zip(*(grads(w * losses[t], encoder) for t, w in weights.items()), strict=True)]
    loss.backward()
    for parameter, gradient in zip(encoder, right, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_inputs_that_require_grad_are_no_weights() -> None:
    def gramian(inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        encoder, heads = nn.Linear(4, 5), nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        hidden = encoder(inputs).tanh()
        losses = {t: head(hidden).square().mean() for t, head in zip("abc", heads, strict=True)}
        for proxy in (eq.Proxy("last", audit=1), eq.Proxy("last", audit=0)):
            found = eq.balanced_loss(losses, eq.FairGrad(), proxy).report.gramian
            yield found

    inputs = torch.randn(8, 4)
    for with_grad, without in zip(gramian(inputs.clone().requires_grad_()), gramian(inputs), strict=True):
        torch.testing.assert_close(with_grad, without)


def test_one_task_alone_can_be_the_first_that_is_seen() -> None:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for proxy in ("last", "features", eq.Proxy("last", audit=1), [net.heads[0].weight], [net.encoder[0].bias]):
            loss = eq.balanced_loss(net.losses(net.features(), "a"), eq.FairGrad(), proxy, tasks=("a", "b", "c"))
            assert loss.report.gramian[0, 0] > 0
