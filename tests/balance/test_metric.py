"""``metric="optimizer"``: Gramians in the metric of the optimizer's step, against dense ones and against what a step does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.engine.gramian import cross_gramian
from equipoise.engine.reals import as_real
from equipoise.step.metric import OptimizerMetric
from equipoise.study import parse_method
from tests.problems import Batch, Heads, batch, losses, optimizer_of, parameters_of, same


class _Sharded(torch.optim.Adam):
    """As ZeroRedundancyOptimizer, which keeps a part of the state in each process."""

    def consolidate_state_dict(self) -> None:
        raise NotImplementedError


def _double(seed: int = 0) -> Batch:
    inputs, targets = batch(seed=seed)
    return inputs.double(), targets.double()


def _trained(method: Any, steps: int, make: Any = torch.optim.Adam, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    balancer = eq.balancer(method, metric="optimizer") if isinstance(method, str) else method
    mtl = optimizer_of(balancer, Heads().double(), make=make, lr=1e-2, **options)
    for step in range(steps):
        mtl.step(_double(step))
    return mtl


def _rows(mtl: eq.MultiTaskOptimizer, parts: list[Tensor], *batches: Batch) -> Tensor:
    """Task gradients of some parameters, averaged over the batches, by plain autograd."""
    found = []
    for one in batches:
        values = losses(mtl.objective.model, one).values()
        gradients = [torch.autograd.grad(value, parts, retain_graph=True) for value in values]
        found.append(torch.stack([torch.cat([piece.flatten() for piece in pieces]) for pieces in gradients]))
    return torch.stack(found).mean(0)


def _divisor(mtl: eq.MultiTaskOptimizer, parts: list[Tensor], steps: int) -> Tensor:
    """√v̂ + ε of Adam (Kingma and Ba, 2015, Algorithm 1)."""
    (adam,) = mtl.optimizers
    return torch.cat([((adam.state[p]["exp_avg_sq"] / (1 - 0.999**steps)).sqrt() + 1e-8).flatten() for p in parts])


@pytest.mark.parametrize(
    "options", [{}, {"proxy": "last"}, {"memory": "streamed"}, {"batched": 0}, {"proxy": eq.Proxy("last", audit=1)}], ids=str
)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_gramian_is_that_of_the_metric(options: dict[str, Any], micro_batches: int) -> None:
    if options.get("memory") and micro_batches > 1:
        pytest.skip("streamed takes one batch per step")
    mtl = _trained("mgda", 3, **options)
    model: Any = mtl.objective.model
    batches = [_double(10 + place) for place in range(micro_batches)]
    proxied = options.get("proxy") == "last"
    parts = [model.encoder[2].weight] if proxied else list(model.encoder.parameters())
    rows, divisor = _rows(mtl, parts, *batches), _divisor(mtl, parts, 3)
    factor = mtl.proxy.factor if proxied and mtl.proxy is not None else 1.0
    mtl.step(*batches)
    assert mtl.last is not None
    assert mtl.last.gramian is not None
    torch.testing.assert_close(mtl.last.gramian, factor * (rows / divisor) @ rows.T, rtol=1e-9, atol=0.0)
    assert torch.equal(mtl.balancer.weights(mtl.last.gramian), mtl.last.weights)  # type: ignore[attr-defined]


def test_products_of_two_batches_and_long_float32_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, others = torch.randn(2, 3, 40_000, generator=generator)
    inverses = torch.rand(40_000, generator=generator)
    expected = (rows.double() * inverses.double()) @ others.double().T
    torch.testing.assert_close(cross_gramian(rows, others, inverses), expected, rtol=1e-10, atol=1e-8)


def test_further_batches_are_multiplied_in_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    mtl = _trained(eq.balancer("modo", metric="optimizer"), 0)
    further = (_double(11), _double(12))
    mtl.step(_double(), further=further)
    model: Any = mtl.objective.model
    parts = list(model.encoder.parameters())
    first, second = (_rows(mtl, parts, one) for one in further)
    expected = (first / _divisor(mtl, parts, 1)) @ second.T
    seen: list[Any] = []
    decide = mtl.balancer.decide
    monkeypatch.setattr(mtl.balancer, "decide", lambda observation: seen.append(observation) or decide(observation))
    mtl.step(_double(), further=further)
    torch.testing.assert_close(seen[0].cross, expected, rtol=1e-9, atol=0.0)


def test_complex_parameters_count_as_pairs() -> None:
    weight = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    adam = torch.optim.Adam([weight], lr=0.1, eps=0.0)
    weight.grad = torch.tensor([3 + 4j, 1 - 2j, 0.5 + 0.25j], dtype=torch.complex128)
    size = as_real(weight.grad).abs()
    adam.step()
    torch.testing.assert_close(OptimizerMetric([adam]).inverse(weight), 1 / size)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {}),
        ("Adam", {"amsgrad": True}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("Adamax", {}),
        ("RMSprop", {}),
        ("RMSprop", {"centered": True}),
        ("Adagrad", {}),
        ("Adadelta", {}),
    ],
    ids=str,
)
def test_the_metric_is_what_the_optimizer_does(name: str, options: dict[str, Any]) -> None:
    """The share of a step that is due to a faint gradient lies along D⁻¹ times that gradient, up to one factor."""
    generator = torch.Generator().manual_seed(1)
    moved = []
    for faint in (0.0, 1e-7):
        generator.manual_seed(1)
        weight = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        optimizer = getattr(torch.optim, name)([weight], lr=1e-2, eps=1e-12, **options)
        for _ in range(12):
            weight.grad = torch.randn(6, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, 6)
            optimizer.step()
        found = OptimizerMetric([optimizer]).inverse(weight)
        optimizer.param_groups[0].update(alpha=1 - 1e-9, rho=1 - 1e-9)  # what fades in the step itself is another matter
        direction = torch.linspace(1, -2, 6, dtype=torch.float64)
        weight.grad = faint * direction
        before = weight.detach().clone()
        optimizer.step()
        moved.append(before - weight.detach())
    expected = found * direction
    response = moved[1] - moved[0]
    torch.testing.assert_close(response / response.norm(), expected / expected.norm(), rtol=1e-4, atol=1e-4)


def test_no_loss_increases_in_the_step_that_the_optimizer_takes() -> None:
    """Two linear losses of two parameters, which agree as they are and conflict in Adam's step."""
    slopes = torch.tensor([[1.0, 1.0], [1.0, -0.5]], dtype=torch.float64)
    increase = {}
    for metric in (None, "optimizer"):
        weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        model = nn.ParameterList([weight])
        adam = torch.optim.Adam([weight], lr=1e-3, betas=(0.0, 1 - 1e-12))
        weight.grad = torch.tensor([100.0, 1.0], dtype=torch.float64)
        adam.step()
        objective = eq.Objective(model, lambda model, _: dict(enumerate_losses(slopes @ model[0])))
        mtl = eq.MultiTaskOptimizer(objective, adam, eq.balancer("upgrad", metric=metric))
        before = mtl.step(None)
        after = mtl.step(None)
        increase[metric] = max(float(after[name] - before[name]) for name in before)
    assert increase[None] > 1e-6
    assert increase["optimizer"] < 1e-12


def enumerate_losses(values: Tensor) -> list[tuple[str, Tensor]]:
    return [(f"t{k}", value) for k, value in enumerate(values)]


class _Rescaled(nn.Module):
    """:class:`Heads` whose encoder is held in other units, each parameter its own."""

    def __init__(self, units: list[float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = Heads().double()
        self.units = units
        own = dict(self.plain.encoder.named_parameters())
        self.names = [f"encoder.{name}" for name in own]
        self.held = nn.ParameterList([value.detach() / unit for value, unit in zip(own.values(), units, strict=True)])
        self.plain.encoder.requires_grad_(False)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        values = [unit * value for unit, value in zip(self.units, self.held, strict=True)]
        return torch.func.functional_call(self.plain, dict(zip(self.names, values, strict=True)), (inputs,))


def test_weights_do_not_depend_on_the_units_of_parameters_that_step_alike() -> None:
    """In units u a parameter has u times the gradient, and with a learning rate of 1/u it goes the same way."""

    def weights(units: list[float], metric: str | None) -> Tensor:
        model = _Rescaled(units)
        groups = [{"params": [held], "lr": 0.01 / unit} for held, unit in zip(model.held, units, strict=True)]
        adam = torch.optim.Adam([*groups, {"params": model.plain.heads.parameters()}], lr=0.01, eps=1e-30)
        for method in (eq.LS(), eq.balancer("mgda", metric=metric)):
            mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), adam, method)
            mtl.step(_double())
        assert mtl.last is not None
        assert mtl.last.weights is not None
        return mtl.last.weights

    units = [8.0, 0.5, 2.0, 0.125]
    torch.testing.assert_close(weights(units, "optimizer"), weights([1.0] * 4, "optimizer"), rtol=1e-7, atol=1e-9)
    assert not torch.allclose(weights(units, None), weights([1.0] * 4, None), rtol=0.05)


def test_before_the_first_step_the_metric_is_the_plain_one_and_new_parameters_count_by_the_mean() -> None:
    here, there = _trained("fairgrad", 1), _trained(eq.FairGrad(), 1)
    assert here.last is not None
    assert there.last is not None
    assert there.last.gramian is not None
    torch.testing.assert_close(here.last.gramian, there.last.gramian, rtol=1e-12, atol=0.0)
    (adam,) = here.optimizers
    (known, _), new = adam.param_groups[0]["params"][:2], nn.Parameter(torch.zeros(2))
    adam.state = {known: {**adam.state[known], "exp_avg_sq": torch.full((2,), 9e-3)}}
    assert float(OptimizerMetric([adam]).inverse(new)[0]) == pytest.approx(1 / 3)


def test_training_stopped_and_resumed_is_the_same_to_the_bit() -> None:
    whole = _trained("fairgrad", 3)
    state = copy.deepcopy(whole.state_dict())  # as a file would hold it: torch hands out the tensors themselves
    again = _trained("fairgrad", 0)
    again.load_state_dict(state)
    for step in (7, 8):
        whole.step(_double(step))
        again.step(_double(step))
    assert same(parameters_of(whole.objective.model), parameters_of(again.objective.model))
    assert whole.last is not None
    assert again.last is not None
    assert torch.equal(whole.last.weights, again.last.weights)


def test_it_is_an_option_of_every_method_on_the_gramian_and_of_no_other() -> None:
    for info in eq.methods():
        if info.cost == "gramian":
            assert info.make(metric="optimizer").metric == "optimizer"  # type: ignore[attr-defined]
            assert info.make().metric is None  # type: ignore[attr-defined]
        else:
            with pytest.raises(eq.InputError, match='no option "metric"'):
                info.make(metric="optimizer")
    assert eq.balancer("consmtl:aggregator=fairgrad(metric=optimizer)").metric == "optimizer"  # type: ignore[attr-defined]
    method = parse_method("FairGrad:metric=optimizer,alpha=2")
    assert method.label == "fairgrad:alpha=2,metric=optimizer"
    assert method.options["metric"] == "optimizer"
    assert "metric" not in parse_method("fairgrad:metric=none").options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _trained("fairgrad", 0, make=torch.optim.SGD), "SGD keeps none"),
        (lambda: _trained("fairgrad", 0, make=_Sharded), "a part in each"),
        (lambda: eq.balancer("fairgrad:metric=adam"), "must be optimizer or none"),
        (lambda: eq.balanced_loss([torch.ones(())] * 2, "mgda:metric=optimizer"), "MultiTaskOptimizer alone"),
        (lambda: eq.backward([torch.ones(())] * 2, "mgda:metric=optimizer"), "MultiTaskOptimizer alone"),
        (lambda: _trained("mgda", 1, proxy="features"), "activations have none"),
        (lambda: _trained("mgda", 1, features="encoder"), "features have none"),
        (lambda: _trained(eq.balancer("consmtl:mu=1,metric=optimizer"), 1), "leave metric= out"),
    ],
)
def test_what_has_no_metric_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(eq.InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_optimizer_that_turns_out_to_keep_no_second_moments_is_refused_and_nothing_has_changed() -> None:
    class Heavy(torch.optim.Optimizer):
        def __init__(self, parameters: Any, lr: float) -> None:
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for parameter in self.param_groups[0]["params"]:
                parameter.sub_(parameter.grad, alpha=0.01)
                self.state[parameter]["velocity"] = parameter.grad.clone()

    mtl = _trained("fairgrad", 1, make=Heavy)
    before = parameters_of(mtl.objective.model)
    with pytest.raises(eq.InputError, match="Heavy keeps none"):
        mtl.step(_double())
    assert same(parameters_of(mtl.objective.model), before)
