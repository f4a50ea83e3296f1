"""ConsMTL: heads that pull their task's gradient towards the joint direction."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems
from tests.states import assert_same_state, kept


class Deep(nn.Module):
    """Heads with a hidden layer, so that the alignment depends on all of their parameters."""

    def __init__(self, tasks: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(dropout))
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(tasks))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.encoder(inputs)
        return [head(features).squeeze(-1) for head in self.heads]


def double(data: problems.Batch) -> problems.Batch:
    return data[0].double(), data[1].double()


def made(balancer: Any, losses: Any = problems.losses, lr: float = 0.0, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Deep(dropout=options.pop("dropout", 0.0)).double()
    objective = eq.Objective(model, losses, tasks=["t0", "t1", "t2"])
    return eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=lr), balancer, **options)


def gradients(model: Deep, data: problems.Batch, at: str = "parameters") -> Tensor:
    if at == "parameters":
        wanted, values = list(model.encoder.parameters()), list(problems.losses(model, data).values())
    else:
        z = model.encoder(data[0])
        wanted = [z]
        outs = [head(z).squeeze(-1) for head in model.heads]
        values = [problems.SCALES[k] * (out - data[1][:, k]).square().mean() for k, out in enumerate(outs)]
    rows = [torch.autograd.grad(v, wanted, retain_graph=True) for v in values]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def extras(balancer: Any, data: Any, **options: Any) -> list[list[Tensor]]:
    """By task, what the balancer adds to the gradients of its head."""
    with_it, plain = made(balancer, **options), made(balancer.aggregator, **options)
    results = []
    for mtl in (with_it, plain):
        torch.manual_seed(1)
        mtl.step(*data)
        results.append([[p.grad.clone() for p in head.parameters()] for head in mtl.objective.model.heads])
    for a, b in zip(with_it.objective.model.encoder.parameters(), plain.objective.model.encoder.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    return [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(*results, strict=True)]


@pytest.mark.parametrize(("measure", "at"), [("product", "parameters"), ("cosine", "parameters"), ("product", "features")])
def test_the_extra_gradient_is_that_of_central_differences(measure: Any, at: str) -> None:
    data = double(problems.batch())
    features = "encoder" if at == "features" else None
    balancer = eq.ConsMTL("mgda", mu=0.7, measure=measure, at_most=None, features=features)
    found = extras(balancer, [data])
    model = made("ls").objective.model
    g = gradients(model, data)
    weights = balancer.weights(g @ g.T)
    d = weights @ gradients(model, data, at)

    def term(k: int) -> float:
        own = gradients(model, data, at)[k]
        product = float(own @ d)
        return 0.7 * (-product if measure == "product" else 1 - product / float(own.norm() * d.norm()))

    for k, head in enumerate(model.heads):
        for parameter, extra in zip(head.parameters(), found[k], strict=True):
            expected = torch.zeros_like(parameter)
            for entry in range(parameter.numel()):
                with torch.no_grad():
                    parameter.view(-1)[entry] += 1e-5
                    above = term_of(term, k)
                    parameter.view(-1)[entry] -= 2e-5
                    below = term_of(term, k)
                    parameter.view(-1)[entry] += 1e-5
                expected.view(-1)[entry] = (above - below) / 2e-5
            assert torch.allclose(extra, expected, rtol=1e-5, atol=1e-8)
        assert max(float(extra.abs().max()) for extra in found[k]) > 1e-5


def term_of(term: Any, k: int) -> float:
    with torch.enable_grad():
        return float(term(k))


def test_the_extra_gradient_is_bounded() -> None:
    data = double(problems.batch())
    free = extras(eq.ConsMTL("mgda", mu=100.0, at_most=None), [data])
    bound = extras(eq.ConsMTL("mgda", mu=100.0, at_most=0.1), [data])
    plain = made("mgda")
    plain.step(data)
    for head, long, short in zip(plain.objective.model.heads, free, bound, strict=True):
        own = torch.cat([p.grad.reshape(-1) for p in head.parameters()])
        a, b = (torch.cat([x.reshape(-1) for x in pieces]) for pieces in (long, short))
        assert float(a.norm()) > 0.1 * float(own.norm())
        assert torch.allclose(b, a * 0.1 * own.norm() / a.norm(), rtol=1e-9)


@pytest.mark.parametrize("measure", ["product", "cosine"])
def test_micro_batches_callables_and_the_drop_in_add_the_same(measure: Any) -> None:
    def lazy(model: nn.Module, data: Any) -> dict[str, Any]:
        return {task: lambda task=task: problems.losses(model, data)[task] for task in ("t0", "t1", "t2")}

    x, y = double(problems.batch())
    balancer = eq.ConsMTL("mgda", mu=0.3, measure=measure)
    whole = extras(balancer, [(x, y)])
    parts = list(zip(x.split(4), y.split(4), strict=True))
    others = [extras(balancer, parts), extras(balancer, [(x, y)], losses=lazy), extras(balancer, [(x, y)], batched=0)]
    model = made("ls").objective.model
    for _ in range(2):  # what .grad holds already is no part of the bound
        before = [[None if p.grad is None else p.grad.clone() for p in h.parameters()] for h in model.heads]
        eq.backward(problems.losses(model, (x, y)), balancer)
    plain = made("mgda")
    plain.step((x, y))
    others.append(
        [
            [p.grad - b - q.grad for p, b, q in zip(h.parameters(), start, own.parameters(), strict=True)]
            for h, start, own in zip(model.heads, before, plain.objective.model.heads, strict=True)
        ]
    )
    for other in others:
        assert all(
            torch.allclose(a, b, rtol=1e-8, atol=1e-12)
            for p, q in zip(whole, other, strict=True)
            for a, b in zip(p, q, strict=True)
        )


def test_the_second_evaluation_has_the_same_dropout_masks() -> None:
    def lazy(model: nn.Module, data: Any) -> dict[str, Any]:
        every = problems.losses(model, data)
        return {task: (lambda loss=loss: loss) for task, loss in every.items()}

    data = [double(problems.batch())]
    here = extras(eq.ConsMTL("mgda"), data, dropout=0.5)
    there = extras(eq.ConsMTL("mgda"), data, dropout=0.5, losses=lazy)
    assert all(torch.allclose(a, b) for p, q in zip(here, there, strict=True) for a, b in zip(p, q, strict=True))


def test_heads_learn_to_agree() -> None:
    def mean_cosine(mu: float) -> float:
        mtl = made(eq.ConsMTL("mgda", mu=mu, measure="cosine", at_most=None), lr=0.02)
        found = []
        for step in range(150):
            mtl.step(double(problems.batch(seed=step % 4)))
            gramian, w = mtl.last.gramian, mtl.last.weights.double()
            found.append(float(((gramian @ w) / (gramian.diagonal().sqrt() * (w @ gramian @ w).sqrt())).mean()))
        return sum(found[-20:]) / 20

    assert mean_cosine(1.0) > mean_cosine(0.0) + 0.05


def test_without_mu_it_is_the_aggregator_to_the_bit() -> None:
    results = []
    for balancer in (eq.ConsMTL("cagrad", mu=0.0), eq.CAGrad()):
        mtl = made(balancer, lr=0.05)
        for step in range(5):
            mtl.step(double(problems.batch(seed=step)))
        results.append(problems.parameters_of(mtl.objective.model))
    assert problems.same(*results)


def test_it_goes_on_to_the_bit_with_an_aggregator_that_remembers() -> None:
    straight, stopped = made(eq.ConsMTL("pcgrad"), lr=0.05), made(eq.ConsMTL("pcgrad"), lr=0.05)
    for step in range(6):
        straight.step(double(problems.batch(seed=step)))
        if step < 3:
            stopped.step(double(problems.batch(seed=step)))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = made(eq.ConsMTL("pcgrad"), lr=0.05)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3, 6):
        resumed.step(double(problems.batch(seed=step)))
    assert problems.same(problems.parameters_of(straight.objective.model), problems.parameters_of(resumed.objective.model))
    with pytest.raises(eq.InputError, match="ConsMTL keeps the state"):
        eq.ConsMTL("mgda").load_state_dict({"aggregator": {}})


def test_batches_that_lack_tasks_and_tasks_without_parameters() -> None:
    def partly(model: nn.Module, data: Any) -> dict[str, Tensor]:
        every = problems.losses(model, data)
        return {"t0": every["t0"], "t2": model.encoder(data[0]).square().mean()}

    mtl = made(eq.ConsMTL("mgda"), losses=partly)
    mtl.step(double(problems.batch()))
    heads = mtl.objective.model.heads
    assert all(p.grad is not None for p in heads[0].parameters())
    assert all(p.grad is None for head in heads[1:] for p in head.parameters())


@pytest.mark.parametrize("measure", ["product", "cosine"])
def test_vanishing_gradients(measure: Any) -> None:
    def losses(model: nn.Module, data: Any) -> dict[str, Tensor]:
        return {k: 0.0 * v if k != "t1" else v for k, v in problems.losses(model, data).items()}

    mtl = made(eq.ConsMTL("mgda", measure=measure), losses=losses)
    mtl.step(double(problems.batch()))
    assert all(torch.isfinite(p.grad).all() for p in mtl.objective.model.parameters())


def test_a_gradient_scaler_changes_nothing() -> None:
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        mtl = made(eq.ConsMTL("mgda"), lr=0.05, scaler=scaler)
        mtl.step(double(problems.batch()))
        results.append(problems.parameters_of(mtl.objective.model))
    assert problems.same(*results, rtol=1e-9, atol=1e-12)


def test_an_extra_gradient_that_is_not_finite_changes_nothing() -> None:
    def losses(model: Any, data: Any) -> dict[str, Tensor]:
        every = problems.losses(model, data)
        z, bias = model.encoder(data[0]).mean(), model.heads[1][2].bias.sum()
        zero = z - z.detach() + bias - bias.detach()
        # The derivative of |x|^1.5 is 0 at 0, the second one has no value there.
        return every | {"t1": every["t1"] + zero.abs().pow(1.5)}

    made("mgda", losses=losses, lr=0.1).step(double(problems.batch()))
    mtl = made(eq.ConsMTL("mgda"), losses=losses, lr=0.1)
    before = kept(mtl.state_dict())
    with pytest.raises(eq.NonFiniteError) as caught:
        mtl.step(double(problems.batch()))
    assert caught.value.tasks == ("t1",)
    assert_same_state(mtl.state_dict(), before)


def test_bad_input() -> None:
    for options, message in (
        ({"aggregator": "famo"}, "aggregator must be a balancer that looks at the Gramian alone"),
        ({"aggregator": "modo"}, "looks at the Gramian alone"),
        ({"aggregator": eq.RotoGrad()}, "looks at the Gramian alone"),
        ({"aggregator": eq.NashMTL(update_every=2)}, "must decide in every step"),
        ({"aggregator": eq.PSMGD(every=2)}, "aggregator must decide in every step"),
        ({"mu": -1.0}, "mu must be finite"),
        ({"measure": "angle"}, 'measure must be "product" or "cosine"'),
        ({"at_most": 0.0}, "at_most must be positive"),
        ({"features": 3}, "features must be a module"),
        ({"features": "encoder", "measure": "cosine"}, "goes with measure"),
    ):
        with pytest.raises(eq.InputError, match=message):
            eq.ConsMTL(**options)
    with pytest.raises(eq.InputError, match='no module "encodr"'):
        made(eq.ConsMTL(features="encodr"))
    model = problems.Heads()
    with pytest.raises(eq.InputError, match=r"needs MultiTaskOptimizer, not backward\(\)"):
        eq.backward(problems.losses(model, problems.batch()), eq.ConsMTL(features=model.encoder))
    mtl = problems.optimizer_of(eq.ConsMTL(), model, features=model.encoder)
    with pytest.raises(eq.InputError, match="an option features= of its own"):
        mtl.step(problems.batch())
