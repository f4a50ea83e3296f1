"""Audits, choice, memory, partial labels, callables, states and bad input of proxies."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.engine.heads import HeadCut
from equipoise.engine.proxy import NamedWeights, Places
from equipoise.errors import InputError, NonFiniteError, UnknownTaskError
from tests.states import assert_same_state


class Model(nn.Module):
    def __init__(self, tasks: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(tasks))

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.encoder(x)
        return [head(h).squeeze(-1) for head in self.heads]


def losses(model: Model, batch: Any) -> dict[str, Tensor]:
    x, present = batch if isinstance(batch, tuple) else (batch, range(4))
    outputs = model(x)
    return {f"t{k}": (outputs[k] * 3.0**k - x[:, k % 5]).square().mean() for k in present}


def made(proxy: Any = "last", balancer: Any = "fairgrad", seed: int = 0, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(seed)
    model = Model()
    return eq.MultiTaskOptimizer(
        eq.Objective(model, losses, tasks=("t0", "t1", "t2", "t3")),
        torch.optim.Adam(model.parameters(), 1e-2),
        balancer,
        proxy=proxy,
        **options,
    )


def batch(number: int) -> Tensor:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(number))


def test_audits_come_when_they_are_due_and_the_step_is_the_exact_one() -> None:
    mtl, exact = made(eq.Proxy("last", audit=3)), made(None)
    audited = []
    for number in range(7):
        mtl.step(batch(number))
        audited.append(mtl.last.audit is not None)
        if number == 0:
            exact.step(batch(0))
            torch.testing.assert_close(mtl.last.weights, exact.last.weights, rtol=1e-4, atol=0)
            torch.testing.assert_close(mtl.last.gramian, exact.last.gramian, rtol=1e-4, atol=1e-12)
            for ours, theirs in zip(mtl.objective.model.parameters(), exact.objective.model.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert audited == [True, False, False, True, False, False, True]
    assert mtl.last.proxy == "last"
    assert 0 < mtl.last.audit.direction <= 1 + 1e-9


def test_the_factor_of_the_last_audit_makes_the_proxy_as_large_as_the_gramian() -> None:
    mtl = made(eq.Proxy("last", audit=100))
    for number in range(3):
        mtl.step(batch(number))
    truth = made(None)
    truth.load_state_dict({**mtl.state_dict(), "proxy": None})
    ratio = truth.gramian(batch(5)).trace()
    mtl.step(batch(5))
    assert 0.5 < float(mtl.last.gramian.trace() / ratio) < 2


def test_auto_takes_the_cheapest_that_is_near_enough() -> None:
    mtl = made(eq.Proxy("auto", at_least=-1.0))
    for number in range(4):
        mtl.step(batch(number))
    assert mtl.last.proxy == "features"  # the cheapest, for anything is near enough
    strict = made(eq.Proxy("auto", at_least=1.1))
    for number in range(4):
        strict.step(batch(number))
    assert strict.last.proxy == "exact"


def test_a_proxy_that_is_not_near_warns_and_falls_back() -> None:
    mtl = made(eq.Proxy("features", audit=1, at_least=1.1, fall_back=True))
    with pytest.warns(UserWarning, match=r'the proxy "features" has a cosine of .* from now on "last"'):
        mtl.step(batch(0))
    with pytest.warns(UserWarning, match='the proxy "last"'):
        mtl.step(batch(1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the direction of the proxy")
        for number in range(5):
            mtl.step(batch(number))
    assert mtl.last.proxy == "exact"


def test_memory_follows_the_scale_and_keeps_absent_tasks() -> None:
    proxy = eq.Proxy("last", memory=0.5, audit=0)
    first = torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(proxy.blend(first, (0, 2), 3), first)
    # Another correlation, and task 2 a hundred times as large: correlations half way, norms half way in their logarithms.
    second = torch.tensor([[4.0, 0.0], [0.0, 90000.0]], dtype=torch.float64)
    found = proxy.blend(second, (0, 2), 3)
    torch.testing.assert_close(found.diagonal(), torch.tensor([4.0, 900.0], dtype=torch.float64))
    torch.testing.assert_close(found[0, 1], torch.tensor(0.5 * (1 / 6) * 2 * 30, dtype=torch.float64))
    # Task 1 comes for the first time, and a task without a gradient leaves what is known alone.
    third = torch.zeros(3, 3, dtype=torch.float64)
    third[1, 1] = 25.0
    found = proxy.blend(third, (0, 1, 2), 3)
    torch.testing.assert_close(found.diagonal(), torch.tensor([0.0, 25.0, 0.0], dtype=torch.float64))
    back = proxy.blend(second, (0, 2), 3)
    assert back.isfinite().all()
    assert back[0, 1] > 0


@pytest.mark.parametrize("proxy", ["last", "features", "last(memory=0.5)"])
def test_batches_that_lack_tasks_weigh_those_they_have(proxy: str) -> None:
    mtl = made(None if "(" in proxy else eq.Proxy(proxy, audit=0), f"fairgrad@{proxy}" if "(" in proxy else "fairgrad")
    for number, present in enumerate([(0, 1, 2, 3), (1, 3), (2,), (0, 2), (0, 1, 2, 3)]):
        mtl.step((batch(number), present))
        assert mtl.last.tasks == tuple(f"t{k}" for k in present)
        assert mtl.last.weights.isfinite().all()
        assert mtl.last.gramian.shape == (len(present), len(present))


def test_callables_are_evaluated_one_by_one_and_deliver_the_same() -> None:
    def lazily(model: Model, batch: Tensor) -> dict[str, Any]:
        return {f"t{k}": (lambda k=k: losses(model, batch)[f"t{k}"]) for k in range(4)}

    results = []
    for function in (losses, lazily):
        torch.manual_seed(0)
        model = Model()
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, function), torch.optim.SGD(model.parameters(), 0.1), "fairgrad", proxy=eq.Proxy("last", audit=0)
        )
        mtl.step(batch(0))
        results.append([mtl.last.weights, *(parameter.detach() for parameter in model.parameters())])
    for eager, lazy in zip(*results, strict=True):
        torch.testing.assert_close(eager, lazy, rtol=1e-4, atol=1e-5)


def test_micro_batches_make_the_step_of_their_union() -> None:
    whole, parts = made(eq.Proxy("last", audit=0)), made(eq.Proxy("last", audit=0))
    whole.step(batch(0))
    parts.step(*batch(0).chunk(3))
    torch.testing.assert_close(whole.last.weights, parts.last.weights, rtol=1e-3, atol=1e-6)
    for one, other in zip(whole.objective.model.parameters(), parts.objective.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("proxy", ["auto", "last", "features"])
def test_training_that_is_resumed_goes_on_to_the_last_bit(proxy: str) -> None:
    straight = made(eq.Proxy(proxy, memory=0.5, audit=4, at_least=0.5))
    for number in range(9):
        if number == 5:
            state = copy.deepcopy(straight.state_dict())
            resumed = made(eq.Proxy(proxy, memory=0.5, audit=4, at_least=0.5), seed=1)
            resumed.load_state_dict(state)
            assert_same_state(resumed.state_dict(), state)
        straight.step(batch(number))
        if number >= 5:
            resumed.step(batch(number))
    assert_same_state(resumed.state_dict(), straight.state_dict())


def test_a_scaler_sees_scaled_gradients_and_the_balancer_does_not() -> None:
    plain, scaled = (
        made(eq.Proxy("last", audit=2)),
        made(eq.Proxy("last", audit=2), scaler=torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10**6)),
    )
    for number in range(3):
        plain.step(batch(number))
        scaled.step(batch(number))
        torch.testing.assert_close(plain.last.weights, scaled.last.weights, rtol=1e-3, atol=1e-6)
    for one, other in zip(plain.objective.model.parameters(), scaled.objective.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_one_task_alone_is_balanced_too() -> None:
    torch.manual_seed(0)
    model = Model(1)
    objective = eq.Objective(model, lambda model, x: {"t0": model(x)[0].square().mean()})
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.1), "mgda", proxy="last")
    before = mtl.step(batch(0))["t0"]
    assert mtl.step(batch(0))["t0"] < before


def test_what_is_not_finite_is_named_before_anything_changes() -> None:
    mtl = made(eq.Proxy("last", audit=0))
    mtl.step(batch(0))
    with torch.no_grad():
        mtl.objective.model.heads[2].weight.fill_(float("nan"))
    bad = copy.deepcopy(mtl.state_dict())
    with pytest.raises(NonFiniteError, match='"t2"'):
        mtl.step(batch(1))
    assert_same_state(mtl.state_dict(), bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proxy": "nowhere"}, "nowhere"),
        ({"proxy": "encoder.7"}, "encoder.7"),
        ({"proxy": [1, 2]}, "list of parameters"),
        ({"proxy": "last", "features": "encoder"}, "two ways"),
        ({"proxy": "last", "balancer": "graddrop"}, "graddrop|GradDrop"),
        ({"proxy": "last", "balancer": "rotograd"}, "features|RotoGrad"),
        ({"proxy": None, "balancer": "fairgrad@last(colums=3)"}, "columns"),
        ({"proxy": "last", "balancer": "fairgrad@last"}, "two|another"),
    ],
)
def test_bad_proxies_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        made(**options).step(batch(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", [{"columns": 0}, {"memory": 1.0}, {"memory": -0.1}, {"audit": -1}])
def test_bad_numbers_are_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        eq.Proxy("last", **argument)


def test_a_proxy_that_no_loss_reaches_is_refused() -> None:
    torch.manual_seed(0)
    model = Model()
    other = nn.Linear(3, 3)
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.1), "fairgrad", proxy=eq.Proxy(other)
    )
    with pytest.raises(InputError, match="no loss reaches"):
        mtl.step(batch(0))


def test_a_proxy_of_what_one_task_alone_reaches_is_refused() -> None:
    mtl = made()
    model = mtl.objective.model
    alone = eq.MultiTaskOptimizer(mtl.objective, torch.optim.SGD(model.parameters(), 0.1), "fairgrad", proxy=model.heads[1])
    with pytest.raises(InputError, match="reach no weight named in proxy="):
        alone.step(batch(0))


def test_a_module_that_a_step_leaves_out_is_refused_there_and_the_training_goes_on() -> None:
    mtl = made(eq.Proxy("encoder.2", memory=0.5, audit=0))
    model = mtl.objective.model
    through = model.encoder
    mtl.step(batch(0))
    before = copy.deepcopy(mtl.state_dict())
    model.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
    with pytest.raises(InputError, match="no loss reaches the weights that proxy= names in this step"):
        mtl.step(batch(1))
    model.encoder = through
    assert_same_state(mtl.state_dict(), before)
    mtl.step(batch(1))


def test_layers_that_torch_func_calls_are_seen_where_their_weights_are_the_models_own() -> None:
    """The graph is what is looked at, whoever called the layer; copies of the weights are none of the model's."""
    mtl = made(eq.Proxy("encoder.2", audit=0, columns=64))
    x = batch(0)
    mtl.step(x)
    expected = made(eq.Proxy("encoder.2", audit=0, columns=64))
    plain = expected.objective.model

    def called(detached: bool) -> Any:
        def losses_of(model: Model, x: Tensor) -> dict[str, Tensor]:
            own = {name: p.detach().clone().requires_grad_() if detached else p for name, p in model.encoder.named_parameters()}
            h = torch.func.vmap(lambda row: torch.func.functional_call(model.encoder, own, (row,)))(x)
            return {f"t{k}": (head(h).squeeze(-1) * 3.0**k - x[:, k]).square().mean() for k, head in enumerate(model.heads)}

        return losses_of

    other = eq.MultiTaskOptimizer(
        eq.Objective(plain, called(False)), torch.optim.SGD(plain.parameters(), 0.0), "fairgrad", proxy=expected.proxy
    )
    other.step(x)
    assert mtl.last is not None
    assert other.last is not None
    torch.testing.assert_close(other.last.gramian, mtl.last.gramian, rtol=1e-4, atol=1e-9)
    hidden = eq.MultiTaskOptimizer(
        eq.Objective(plain, called(True)), torch.optim.SGD(plain.parameters(), 0.0), "fairgrad", proxy="encoder.2"
    )
    with pytest.raises(InputError, match="the tasks share nothing that could be balanced"):
        hidden.step(x)


def test_a_task_that_comes_later_is_named_and_nothing_changes() -> None:
    mtl = made(eq.Proxy("last", memory=0.5))
    mtl.step(batch(0))
    before, function = copy.deepcopy(mtl.state_dict()), mtl.objective.losses
    mtl.objective.losses = lambda model, x: {**function(model, x), "t4": model(x)[0].square().mean()}
    with pytest.raises(UnknownTaskError, match="t4"):
        mtl.step(batch(1))
    assert_same_state(mtl.state_dict(), before)


def test_an_audit_that_is_not_finite_stops_the_step_before_anything_changes() -> None:
    """The losses and the last layer are finite; the first layer's gradients, which the audit alone looks at, are not."""
    mtl = made(eq.Proxy("last", memory=0.5, audit=2))
    mtl.step(batch(0))
    mtl.step(batch(1))
    model = mtl.objective.model
    with torch.no_grad():
        model.encoder[0].weight.zero_()
    before = copy.deepcopy(mtl.state_dict())
    large = batch(2)
    large[:, 4] = 3e38
    with pytest.raises(NonFiniteError):
        mtl.step(large)
    assert_same_state(mtl.state_dict(), before)


def test_losses_that_nothing_joins_are_refused() -> None:
    apart = [nn.Linear(3, 1) for _ in range(2)]
    values = [layer(torch.ones(2, 3)).square().mean() for layer in apart]
    with pytest.raises(InputError, match=r"share|reach"):
        eq.balanced_loss(values, eq.FairGrad())


def test_the_cut_does_not_visit_the_encoder() -> None:
    model = Model()
    HeadCut(dict(enumerate(losses(model, batch(0)).values())))  # the first of a thread looks at all
    found = HeadCut(dict(enumerate(losses(model, batch(0)).values())))
    assert [edge[0].name() for edge in found.edges] == ["TanhBackward0"]
    inside = {id(parameter) for parameter in model.encoder.parameters()}
    assert not any(id(getattr(node, "variable", None)) in inside for node in found.reach)


def test_entries_of_one_vector_of_losses_meet_at_the_vector() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    values = (layer(torch.randn(5, 3)) ** 2).mean(0)
    loss = eq.balanced_loss(values, eq.FairGrad(), eq.Proxy("last", audit=0))
    expected = torch.autograd.grad((loss.report.weights.float() * values).sum(), list(layer.parameters()), retain_graph=True)
    loss.backward()
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("method", ["uw", "ls", "gls", "ldc-mtl", "si"])
def test_balancers_of_losses_work_as_losses_too(method: str) -> None:
    torch.manual_seed(0)
    model, balancer = Model(), eq.balancer(method)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = last = None
    for _ in range(20):
        values = losses(model, batch(0))
        loss = eq.balanced_loss(values, balancer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first if first is not None else values["t1"].detach()
        last = values["t1"].detach()
    assert last < first


def test_the_drop_in_takes_a_proxy_and_gives_heads_their_own_gradients() -> None:
    torch.manual_seed(0)
    model, balancer, proxy = Model(), eq.FairGrad(), eq.Proxy("last", audit=2)
    for number in range(3):
        values = losses(model, batch(number))
        grads = [
            torch.autograd.grad(value, list(model.parameters()), retain_graph=True, allow_unused=True)
            for value in values.values()
        ]
        model.zero_grad()
        report = eq.backward(values, balancer, proxy=proxy)
        assert (report.audit is not None) == (number != 1)
        shared = {id(parameter) for parameter in model.encoder.parameters()}
        for place, parameter in enumerate(model.parameters()):
            factors = report.weights.float() if id(parameter) in shared else torch.ones(4)
            expected = sum(g[place] * f for g, f in zip(grads, factors, strict=True) if g[place] is not None)
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_report_holds_the_gramian_that_the_balancer_saw(memory: float) -> None:
    mtl = made(eq.Proxy("last", audit=3, memory=memory))
    raw = made(eq.Proxy("last", audit=0))
    for number in range(5):
        raw.load_state_dict({**copy.deepcopy(mtl.state_dict()), "proxy": raw.proxy.state_dict()})
        mtl.step(batch(number))
        raw.step(batch(number))
        torch.testing.assert_close(mtl.last.weights, eq.FairGrad().weights(mtl.last.gramian))
        if mtl.last.audit is None and not memory:
            torch.testing.assert_close(mtl.last.gramian, raw.last.gramian * mtl.proxy.factor)
    assert mtl.proxy.factor > 1.1  # the whole encoder's gradients are longer than the last layer's


def test_a_source_of_ones_own_says_where_to_look() -> None:
    class Second:
        """The layer before the last."""

        def places(self, cut: HeadCut, allowed: Any) -> Places:
            return Places(NamedWeights([model.encoder[0].weight]).places(cut, allowed).layers)

    torch.manual_seed(0)
    model = Model()
    balancer = eq.FairGrad()
    values = losses(model, batch(0))
    found = eq.balanced_loss(values, balancer, eq.Proxy(Second(), columns=100, audit=0)).report.gramian
    rows = torch.stack(
        [torch.autograd.grad(v, model.encoder[0].weight, retain_graph=True)[0].flatten() for v in values.values()]
    ).double()
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-5, atol=1e-9)


def test_a_refused_first_call_declares_no_tasks() -> None:
    model, balancer = Model(), eq.FairGrad()
    bad = {name: value * float("nan") for name, value in losses(model, batch(0)).items()}
    with pytest.raises(NonFiniteError):
        eq.balanced_loss(bad, balancer, tasks=("t3", "t2", "t1", "t0"))
    assert eq.balanced_loss(losses(model, batch(0)), balancer).report.tasks == ("t0", "t1", "t2", "t3")
