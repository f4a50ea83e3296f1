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


def made(proxy: Any, balancer: Any = "fairgrad", **options: Any) -> eq.MultiTaskOptimizer:
    net = Net()

    def losses(model: Net, batch: Any) -> dict[str, Tensor]:
        inputs, tasks = batch
        found = model.losses(model.encoder(inputs), tasks)
        return {task: loss * float("nan") if inputs[0, 0] == 7 else loss for task, loss in found.items()}

    optimizer = options.pop("optimizer", torch.optim.SGD)(net.parameters(), 1e-2)
    return eq.MultiTaskOptimizer(eq.Objective(net, losses, tasks=("a", "b", "c")), optimizer, balancer, proxy=proxy, **options)


def batch(seed: int, tasks: str = "abc") -> tuple[Tensor, str]:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)), tasks


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return torch.equal(one, two) if isinstance(one, Tensor) else one == two


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise RuntimeError("no step today")
        return super().step(closure)


@pytest.mark.parametrize("proxy", ["last", "auto"])
@pytest.mark.parametrize("balancer", ["fairgrad", "pcgrad", "nash-mtl:update_every=2"])
def test_refused_steps_teach_the_proxy_nothing(proxy: str, balancer: str) -> None:
    mtl = made(eq.Proxy(proxy, memory=0.5, audit=2), balancer, optimizer=Failing)
    for number in range(4):
        mtl.step(batch(number))
        proxy_before, balancer_before = mtl.proxy.state_dict(), mtl.balancer.state_dict()
        bad = batch(number)
        bad[0][0, 0] = 7
        with pytest.raises(eq.NonFiniteError):
            mtl.step(bad)
        mtl.optimizer.fails = True
        with pytest.raises(RuntimeError, match="no step today"):
            mtl.step(batch(number + 1))
        mtl.optimizer.fails = False
        assert same(mtl.proxy.state_dict(), proxy_before)
        assert repr(mtl.balancer.state_dict()) == repr(balancer_before)
        mtl.gramian(batch(number))
        assert same(mtl.proxy.state_dict(), proxy_before)


def test_skipped_steps_teach_the_proxy_nothing() -> None:
    mtl = made(eq.Proxy("last", memory=0.5, audit=0), scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    mtl.step(batch(0))
    before = mtl.proxy.state_dict()
    mtl.scaler._scale.fill_(torch.finfo(torch.float32).max)
    mtl.step(batch(1))
    assert mtl.last.skipped
    assert same(mtl.proxy.state_dict(), before)


def test_a_step_that_is_evaluated_again_is_counted_once() -> None:
    from torch.optim import LBFGS

    mtl = made(eq.Proxy("last", memory=0.5, audit=0), optimizer=LBFGS)
    try:
        for number in range(2):
            mtl.step(batch(0))
            assert mtl.proxy.steps == number + 1
    except eq.InputError as error:
        pytest.skip(str(error))


def test_an_audit_leaves_the_balancer_where_the_exact_step_does() -> None:
    for balancer in ("pcgrad", "gradvac", "nash-mtl:update_every=2", "fairgrad", "cagrad", "imtl-g"):
        audited, exact = made(eq.Proxy("last", audit=1, at_least=-1.0), balancer), made(None, balancer)
        for number in range(4):
            audited.step(batch(number))
            exact.step(batch(number))
            torch.testing.assert_close(audited.last.weights, exact.last.weights, rtol=1e-3, atol=1e-4)
        for a, b in zip(audited.objective.model.parameters(), exact.objective.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_parameters_named_anew_each_step_are_the_same_proxy() -> None:
    net, balancer = Net(), eq.FairGrad()
    for number in range(3):
        report = eq.backward(net.losses(net.features()), balancer, proxy=net.encoder[2].parameters())
        assert (report.audit is None) == (number > 0)
    balancer = eq.FairGrad()
    for number in range(3):
        loss = eq.balanced_loss(net.losses(net.features()), balancer, net.encoder[2].parameters())
        assert (loss.report.audit is None) == (number > 0)


def test_a_first_call_that_fails_leaves_the_tasks_unknown() -> None:
    net, balancer = Net(), eq.FairGrad()
    losses = net.losses(net.features())
    with pytest.raises(eq.NonFiniteError):
        eq.balanced_loss({"a": losses["a"], "wrong": losses["b"] * float("nan")}, balancer)
    assert eq.balanced_loss(losses, balancer).report.tasks == ("a", "b", "c")


def test_with_all_that_is_shared_frozen_the_heads_are_trained() -> None:
    mtl = made("last")
    mtl.objective.model.encoder.requires_grad_(False)
    with pytest.warns(UserWarning, match="nothing to balance"):
        mtl.step(batch(0))
    assert mtl.last.weights is None
    losses = mtl.objective.model.losses(mtl.objective.model.encoder(batch(1)[0]))
    right = [
        grads(loss, list(head.parameters())) for loss, head in zip(losses.values(), mtl.objective.model.heads, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mtl.step(batch(1))
    for head, gradients in zip(mtl.objective.model.heads, right, strict=True):
        for parameter, gradient in zip(head.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_gradients_all_zero_are_told_once() -> None:
    mtl = made(eq.Proxy("last", audit=0))
    for head in mtl.objective.model.heads:
        nn.init.zeros_(head.weight)
    mtl.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.warns(UserWarning, match="all task gradients of the shared parameters are exactly zero"):
        mtl.step(batch(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mtl.step(batch(1))


def test_expanded_gradients_are_given_room() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Parameter(torch.ones(3, 3))
            self.one, self.two = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    model = Sums()

    def losses(model: Sums, _: Any) -> dict[str, Tensor]:
        hidden = torch.ones(2, 3) @ model.shared
        return {"a": hidden.sum() + (model.one + model.two).sum(), "b": hidden.square().sum()}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.1), "fairgrad", proxy="last", clip=1.0
    )
    mtl.step(None)
    torch.testing.assert_close(model.one, model.two)
    model.one.grad.mul_(2)
    assert not torch.equal(model.one.grad, model.two.grad)


@pytest.mark.parametrize("size", [5, 6])
def test_weights_that_are_taken_once_as_they_are_and_once_transposed(size: int) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(size, 6))
    out = torch.tanh((torch.randn(4, 6) @ weight.t()).tanh() @ weight)
    losses = {task: (out @ torch.randn(6)).square().mean() for task in "abc"}
    found = eq.balanced_loss(losses, eq.FairGrad(), eq.Proxy([weight], audit=0)).report.gramian
    rows = torch.stack([grads(loss, [weight])[0].flatten() for loss in losses.values()]).double()
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-4, atol=1e-6)


def test_products_with_a_factor() -> None:
    torch.manual_seed(0)
    first, second = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6))
    hidden = torch.addmm(torch.zeros(6), torch.randn(4, 6), first, alpha=0.1).tanh()
    out = torch.addmm(torch.zeros(6), hidden, second, alpha=3.0).tanh()
    losses = {task: (out @ torch.randn(6)).square().mean() for task in "abc"}
    found = eq.balanced_loss(losses, eq.FairGrad(), eq.Proxy([first, second], audit=0)).report.gramian
    rows = torch.stack([torch.cat([g.flatten() for g in grads(loss, [first, second])]) for loss in losses.values()]).double()
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-4, atol=1e-6)


def test_weights_of_one_task_alone_are_no_proxy() -> None:
    net = Net()
    losses = net.losses(net.features())
    for named in (net.heads[0], net.heads):
        with pytest.raises(eq.InputError, match="3 of the 3 tasks reach no weight named in proxy="):
            eq.balanced_loss(losses, eq.FairGrad(), named)
    losses["d"] = nn.Parameter(torch.ones(())).square()
    with pytest.raises(eq.InputError, match="1 of the 4 tasks"):
        eq.balanced_loss(losses, eq.FairGrad(), net.encoder)


def test_a_memory_of_tasks_seen_at_different_times_is_a_gramian() -> None:
    proxy, generator = eq.Proxy("last", memory=0.9, audit=0), torch.Generator().manual_seed(0)
    indefinite = False
    for number in range(60):
        present = sorted(torch.randperm(5, generator=generator)[:3].tolist()) if number % 3 else list(range(5))
        rows = torch.randn(len(present), 2, dtype=torch.float64, generator=generator)
        found = proxy.blend(rows @ rows.T, present, 5)
        assert torch.linalg.eigvalsh(found).min() >= -1e-8 * found.trace()
        kept = proxy.state_dict()["correlations"][present][:, present]
        indefinite = indefinite or bool(torch.linalg.eigvalsh(kept).min() < -1e-6)
        sizes = proxy.state_dict()["norms"][present].exp()
        torch.testing.assert_close(found.diagonal(), sizes**2)
    assert indefinite


def test_states_of_proxies_are_looked_at() -> None:
    proxy = eq.Proxy("auto", memory=0.5)
    state = proxy.state_dict()
    double = torch.ones(2, 2, dtype=torch.float64)
    for bad in (
        {"chosen": "rubbish"},
        {"trials": {"rubbish": [1.0]}},
        {"factor": float("nan")},
        {"steps": -1},
        {"correlations": double},
        {"correlations": double, "norms": torch.ones(3, dtype=torch.float64), "seen": double > 0},
        {"correlations": double.float(), "norms": double[0], "seen": double > 0},
    ):
        with pytest.raises(eq.InputError, match="the state of a proxy"):
            proxy.load_state_dict({**state, **bad})
        assert same(proxy.state_dict(), state)


def test_losses_with_fixed_weights_go_along() -> None:
    for way in ("step", "micro-batches", "drop-in"):
        found = []
        for proxy in (eq.Proxy("last", audit=1, at_least=-1.0), None):
            net = Net()

            def losses(model: Net, batch: Any) -> dict[str, Tensor]:
                features = model.encoder(batch[0])
                return {**model.losses(features), "penalty": features.square().mean()}

            optimizer = torch.optim.SGD(net.parameters(), 0.1)
            if way == "drop-in":
                eq.backward(losses(net, batch(0)), eq.FairGrad(), fixed={"penalty": 0.5}, proxy=proxy)
                optimizer.step()
            else:
                objective = eq.Objective(net, losses, tasks=("a", "b", "c"), fixed={"penalty": 0.5})
                mtl = eq.MultiTaskOptimizer(objective, optimizer, "fairgrad", proxy=proxy)
                mtl.step(batch(0), *([batch(1)] if way == "micro-batches" else []))
            found.append(list(net.parameters()))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_balanced_loss_with_own_heads_can_be_differentiated_twice() -> None:
    net = Net()
    losses, every = net.losses(net.features()), list(net.parameters())
    loss = eq.balanced_loss(losses, eq.FairGrad(), heads="own")
    first = torch.autograd.grad(loss, every, create_graph=True)
    (3.0 * loss).backward(retain_graph=True)
    for parameter, gradient in zip(every, first, strict=True):
        torch.testing.assert_close(parameter.grad, 3.0 * gradient)
    weights = dict(zip("abc", loss.report.weights.tolist(), strict=True))
    total = sum(weights[task] * value for task, value in losses.items())
    encoder = list(net.encoder.parameters())
    right = [*torch.autograd.grad(total, encoder, create_graph=True)]
    for head, value in zip(net.heads, losses.values(), strict=True):
        right += torch.autograd.grad(value, list(head.parameters()), create_graph=True)
    ours = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), every, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(sum(gradient.square().sum() for gradient in right), every, allow_unused=True)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["callables", "micro-batches"])
def test_last_layers_that_differ_between_evaluations_are_told_once(way: str) -> None:
    class Adapted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.adapter = nn.Linear(5, 5)

        def value(self, inputs: Tensor, task: str) -> Tensor:
            features = self.encoder(inputs)
            return self.heads["abc".index(task)](self.adapter(features) if task in "ab" else features).square().mean()

    def losses(model: Adapted, given: Any) -> dict[str, Any]:
        inputs, tasks = given
        if way == "callables":
            return {task: (lambda task=task: model.value(inputs, task)) for task in tasks}
        return {task: model.value(inputs, task) for task in tasks}

    batches = [batch(0)] if way == "callables" else [batch(0, "ab"), batch(1, "c")]
    for proxy, told in (("last", True), ("encoder.2", False)):
        net = Adapted()
        objective = eq.Objective(net, losses, tasks=("a", "b", "c"))
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        mtl = eq.MultiTaskOptimizer(objective, optimizer, "fairgrad", proxy=eq.Proxy(proxy, audit=0))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            mtl.step(*batches)
            mtl.step(*batches)
        assert ["name the module in proxy=" in str(warning.message) for warning in said] == [True] * told
        assert (float(mtl.last.gramian[0, 2]) == 0) == told


def test_tasks_that_a_proxy_does_not_see_are_named() -> None:
    net = Net()
    vector = torch.stack(list(net.losses(net.features()).values())) * 1.0  # its entries lead to every head
    with pytest.warns(UserWarning, match="saw gradients that are exactly zero for task0, task1 and not for others"):
        eq.balanced_loss(vector, eq.FairGrad(), eq.Proxy("last", audit=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eq.balanced_loss(vector, eq.FairGrad(), eq.Proxy(net.encoder, audit=0))
