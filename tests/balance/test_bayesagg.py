"""BayesAgg-MTL: posteriors and moments against closed forms, quadrature and the released code; whole steps; what is refused."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import equipoise as eq
from equipoise.balance.bayesagg import BayesAggMTL
from equipoise.balance.bayesagg.likelihoods import (
    BinaryCrossEntropy,
    CrossEntropy,
    Gaussian,
    Likelihood,
    SquaredError,
    likelihood_of,
)
from equipoise.balance.bayesagg.moments import aggregate, drawn_moments, squared_error_moments
from equipoise.study import Problem, Splits, Study, parse_methods
from equipoise.study.plan import Run
from equipoise.study.problems import digits_problem
from equipoise.study.training import train
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same, targets
from tests.states import assert_same_state, kept

ORACLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "oracles" / "bayesagg.json").read_text(encoding="utf-8"))
WIDTH = 5


def numbers(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def gaussian(size: int, columns: int = 1, seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
    precision = root @ root.T
    return Gaussian(precision[None], (precision @ torch.randn(size, columns, generator=generator, dtype=torch.float64))[None])


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_kind(outputs: int = 3, rows: int = 7) -> list[tuple[Likelihood, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (SquaredError(0.3), drawn(outputs, rows, seed=3)),
        (CrossEntropy(), torch.randint(outputs, (rows,), generator=generator)),
        (BinaryCrossEntropy(), torch.rand(outputs, rows, generator=generator) < 0.5),
    ]


# -- moments


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_moments_of_squared_errors_are_exact(outputs: int, bias: bool) -> None:
    """Against Gauss–Hermite quadrature, which is exact for these polynomials of the parameters."""
    size, width = (3, 2) if bias else (2, 2)
    posterior = gaussian(size, outputs)
    inputs, values = drawn(4, size), drawn(outputs, 4, seed=2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    grid = torch.tensor(list(itertools.product(nodes, repeat=size * outputs))).view(-1, size, outputs)
    shares = torch.tensor([math.prod(pick) for pick in itertools.product(weights, repeat=size * outputs)])
    shares /= shares.sum()
    root = torch.linalg.cholesky(torch.linalg.inv(posterior.precision[0]))
    center = torch.linalg.solve(posterior.precision[0], posterior.shift[0])
    parameters = center + torch.einsum("ij,sjc->sic", root, grid)
    residuals = torch.einsum("ni,sic->snc", inputs, parameters) - values.T
    gradients = torch.einsum("snc,sic->sni", 2 * residuals / outputs, parameters[:, :width])
    mean = torch.einsum("s,sni->ni", shares, gradients)
    variance = torch.einsum("s,sni->ni", shares, (gradients - mean).square())
    found = squared_error_moments(posterior, inputs, values, width)
    assert torch.allclose(found[0], mean, rtol=1e-10, atol=1e-12)
    assert torch.allclose(found[1], variance, rtol=1e-9, atol=1e-12)


def test_moments_from_draws_against_quadrature() -> None:
    """One output with one feature: z and w are jointly Gaussian, and two dimensions can be integrated."""
    posterior, inputs = gaussian(2, seed=5), drawn(3, 2)
    answers = torch.tensor([[True, False, True]])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grid = torch.tensor(list(itertools.product(nodes, repeat=2)))
    shares = torch.tensor(np.outer(weights, weights).ravel() / weights.sum() ** 2)
    root = torch.linalg.cholesky(torch.linalg.inv(posterior.precision[0]))
    parameters = posterior.mean()[0, :, 0] + grid @ root.T
    gradients = ((parameters @ inputs.T).sigmoid() - answers[0].double()) * parameters[:, :1]  # [S, N]
    mean = shares @ gradients
    variance = shares @ (gradients - mean).square()
    count = 200_000
    draws = posterior.draw(drawn(count, 1, 2, seed=6))
    found = drawn_moments(BinaryCrossEntropy(), draws, posterior.mean()[:, :, 0], inputs, answers, 1)
    assert torch.all((found[0][:, 0] - mean).abs() < 5 * (variance / count).sqrt())
    assert torch.allclose(found[1][:, 0], variance, rtol=0.03)


@pytest.mark.parametrize("kind", range(3))
def test_moments_from_draws_are_those_of_autograd(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood, values = every_kind()[kind]
    inputs, draws = drawn(7, 4), drawn(30, 3, 4, seed=9)
    rows = []
    for parameters in draws:
        features = inputs[:, :3].clone().requires_grad_()
        outputs = features @ parameters[:, :3].T + inputs[:, 3:] * parameters[:, 3]
        if kind == 0:
            loss = (outputs - values.T).square().mean(1).sum()
        elif kind == 1:
            loss = F.cross_entropy(outputs, values, reduction="sum")
        else:
            loss = F.binary_cross_entropy_with_logits(outputs, values.T.double(), reduction="none").mean(1).sum()
        rows.append(torch.autograd.grad(loss, features)[0])
    gradients = torch.stack(rows)
    for entries in (1, 100, 1 << 22):  # one at a time, a few, all at once
        monkeypatch.setattr("equipoise.balance.bayesagg.moments._ENTRIES", entries)
        mean, variance = drawn_moments(likelihood, draws, draws.mean(0), inputs, values, 3)
        assert torch.allclose(mean, gradients.mean(0), atol=1e-12)
        assert torch.allclose(variance, gradients.var(0, correction=0), atol=1e-12)


def test_variances_far_below_the_gradients_are_not_lost() -> None:
    """In single precision, E[g²] − E[g]² would be rounding here."""
    center, inputs, answers = 100 * drawn(1, 3).float(), drawn(5, 3, seed=4).float(), torch.ones(1, 5)
    draws = center + 1e-3 * drawn(400, 1, 3, seed=8).float()
    _, single = drawn_moments(SquaredError(), draws, center, inputs, answers, 3)
    _, double = drawn_moments(SquaredError(), draws.double(), center.double(), inputs.double(), answers.double(), 3)
    assert torch.allclose(single.double(), double, rtol=0.02)


# -- posteriors


@pytest.mark.parametrize("bias", [True, False])
def test_posterior_of_squared_errors_is_the_ridge_solution(bias: bool) -> None:
    features, values = drawn(20, 4), drawn(20, 2, seed=2)
    inputs = torch.cat([features, torch.ones(20, 1)], 1).double() if bias else features
    evidence = SquaredError(0.5).evidence(inputs, values.T, torch.zeros(2, inputs.shape[1]).double())
    posterior = Gaussian.spherical(inputs.shape[1], 3.0, evidence) + evidence
    ridge = torch.linalg.lstsq(
        torch.cat([inputs / 0.5**0.5, torch.eye(inputs.shape[1]).double() / 3**0.5]),
        torch.cat([values / 0.5**0.5, torch.zeros(inputs.shape[1], 2).double()]),
    ).solution
    assert torch.allclose(posterior.mean()[0], ridge, atol=1e-10)
    assert torch.allclose(posterior.covariance()[0] @ posterior.precision[0], torch.eye(inputs.shape[1]).double(), atol=1e-10)


@pytest.mark.parametrize("kind", range(3))
def test_one_after_the_other_is_all_at_once(kind: int) -> None:
    likelihood, values = every_kind(rows=12)[kind]
    inputs, weights = drawn(12, 4), drawn(3, 4, seed=7)
    whole = likelihood.evidence(inputs, values, weights)
    prior = Gaussian.spherical(whole.precision.shape[-1], 2.0, whole)
    sequential = prior
    for part in (slice(8, 12), slice(0, 3), slice(3, 8)):
        sequential = sequential + likelihood.evidence(inputs[part], values[..., part], weights)
    for one, other in zip(sequential, prior + whole, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("kind", [1, 2])
def test_newton_steps_lead_to_what_direct_optimisation_finds(kind: int) -> None:
    likelihood, values = every_kind(rows=30)[kind]
    inputs, gamma = drawn(30, 4), 0.7

    def energy(parameters: Tensor) -> Tensor:
        outputs = inputs @ parameters.view(3, 4).T
        if kind == 1:
            loss = F.cross_entropy(outputs, values, reduction="sum")
        else:
            loss = F.binary_cross_entropy_with_logits(outputs, values.T.double(), reduction="sum")
        return loss + parameters.square().sum() / (2 * gamma)

    start = drawn(12, seed=11).requires_grad_()
    solver = torch.optim.LBFGS([start], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = energy(start)
        value.backward()
        return value

    solver.step(closure)
    optimum = start.detach()
    # One step is Newton's own, from anywhere.
    somewhere = 0.5 * drawn(12, seed=12)
    for point in (somewhere, optimum):
        evidence = likelihood.evidence(inputs, values, point.view(3, 4))
        posterior = Gaussian.spherical(evidence.precision.shape[-1], gamma, evidence) + evidence
        hessian = torch.autograd.functional.hessian(energy, point)
        slope = torch.autograd.functional.jacobian(energy, point)
        assert torch.allclose(posterior.mean().flatten(), point - torch.linalg.solve(hessian, slope), atol=1e-8)
        assert torch.allclose(torch.block_diag(*posterior.precision), hessian, atol=1e-10)
    # And the steps end where direct optimisation does.
    parameters = torch.zeros(12).double()
    for _ in range(10):
        evidence = likelihood.evidence(inputs, values, parameters.view(3, 4))
        parameters = (Gaussian.spherical(evidence.precision.shape[-1], gamma, evidence) + evidence).mean().flatten()
    assert torch.allclose(parameters, optimum, atol=1e-7)


def test_draws_have_the_posteriors_moments() -> None:
    posterior = Gaussian(*(torch.cat([one, other]) for one, other in zip(gaussian(3), gaussian(3, seed=1), strict=True)))
    draws = posterior.draw(drawn(100_000, 2, 3))
    covariance = posterior.covariance()
    for k in range(2):
        assert torch.allclose(draws[:, k].mean(0), posterior.mean()[k, :, 0], atol=5 * float(covariance.max() / 1e5) ** 0.5)
        assert torch.allclose(torch.cov(draws[:, k].T), covariance[k], atol=0.02 * float(covariance[k].abs().max()))


def test_badly_conditioned_data_have_a_posterior() -> None:
    column = 1e7 * drawn(50, 1)
    inputs = torch.cat([column, column, 1e-7 * drawn(50, 1, seed=3), torch.ones(50, 1).double()], 1)
    values = drawn(1, 50, seed=4)
    evidence = SquaredError().evidence(inputs, values, torch.zeros(1, 4).double())
    mean, variance = squared_error_moments(Gaussian.spherical(4, 1.0, evidence) + evidence, inputs, values, 3)
    assert bool(torch.isfinite(mean).all())
    assert bool(torch.isfinite(variance).all())
    assert bool((variance >= 0).all())


# -- the released code, run in double precision; it leaves out the bias where errors are squared


def test_the_released_codes_regression() -> None:
    oracle = ORACLE["regression"]
    epoch, features = numbers(ORACLE["epoch_features"]), numbers(ORACLE["features"])
    before, values = numbers(oracle["epoch_targets"]), numbers(oracle["targets"])
    means, variances = [], []
    for k in range(2):  # each output counts as a task there
        known = SquaredError().evidence(epoch, before.T[k : k + 1], torch.zeros(1, 3))
        known = Gaussian.spherical(3, oracle["gamma"], known) + known
        assert torch.allclose(known.mean()[0, :, 0], numbers(oracle["epoch_mean"])[k], rtol=1e-9)
        assert torch.allclose(known.covariance()[0], numbers(oracle["epoch_covariance"]), rtol=1e-9)
        posterior = known + SquaredError().evidence(features, values.T[k : k + 1], torch.zeros(1, 3))
        assert torch.allclose(posterior.mean()[0, :, 0], numbers(oracle["mean"])[k], rtol=1e-9)
        mean, variance = squared_error_moments(posterior, features, values.T[k : k + 1], 3)
        assert torch.allclose(mean, numbers(oracle["gradient_mean"])[:, k], rtol=1e-9)
        assert torch.allclose(variance, numbers(oracle["gradient_variance"])[:, k], rtol=1e-9)
        means.append(mean)
        variances.append(variance)
    direction = aggregate(torch.stack(means), torch.stack(variances), numbers([oracle["power"]] * 2)) / len(features)
    assert torch.allclose(direction, numbers(oracle["direction"]), rtol=1e-9)


@pytest.mark.parametrize("kind", ["classes", "binary"])
def test_the_released_codes_classification(kind: str) -> None:
    oracle = ORACLE[kind]
    epoch, features = (numbers([[*row, 1.0] for row in ORACLE[name]]) for name in ("epoch_features", "features"))
    weights = torch.cat([numbers(oracle["weight"]), numbers(oracle["bias"])[:, None]], 1)
    likelihood: Likelihood = CrossEntropy() if kind == "classes" else BinaryCrossEntropy()
    dtype = torch.int64 if kind == "classes" else torch.bool
    before, values = (numbers(oracle[name], dtype) for name in ("epoch_targets", "targets"))
    if kind == "binary":
        before, values = before.T, values.T
    known = likelihood.evidence(epoch, before, weights)
    known = Gaussian.spherical(known.precision.shape[-1], oracle["gamma"], known) + known
    posterior = known + likelihood.evidence(features, values, weights)
    for own, name in ((known, "epoch_"), (posterior, "")):
        assert torch.allclose(own.mean().flatten(), numbers(oracle[f"{name}mean"]), rtol=1e-8)
        assert torch.allclose(torch.block_diag(*own.precision), numbers(oracle[f"{name}precision"]), rtol=1e-7, atol=1e-9)
    noise = drawn(50_000, *posterior.precision.shape[:2])
    draws = posterior.draw(noise).view(len(noise), *weights.shape)
    mean, variance = numbers(oracle["gradient_mean"]), numbers(oracle["gradient_variance"])
    if kind == "classes":
        found = drawn_moments(likelihood, draws, posterior.mean().view(weights.shape), features, values, 3)
        pairs = [(found, (mean[:, 0], variance[:, 0]))]
    else:  # there, each answer is a task
        pairs = []
        for k in range(2):
            found = drawn_moments(
                likelihood, draws[:, k : k + 1], posterior.mean()[k : k + 1, :, 0], features, values[k : k + 1], 3
            )
            pairs.append((found, (mean[:, k], variance[:, k])))
    for own, theirs in pairs:
        # Their numbers are from a million draws. The smallest variances come from a few of them alone.
        assert torch.all((own[0] - theirs[0]).abs() < 6 * (theirs[1] / len(noise)).sqrt())
        assert torch.allclose(own[1], theirs[1], rtol=0.03, atol=1e-4)


# -- aggregation


def test_aggregation() -> None:
    means, variances = drawn(3, 4, 5), drawn(3, 4, 5, seed=2).exp()
    powers = numbers([1.0, 1.0, 1.0])
    expected = (means / variances).sum(0) / (1 / variances).sum(0)
    assert torch.allclose(aggregate(means, variances, powers), expected)
    assert torch.allclose(aggregate(means, variances, 0 * powers), means.mean(0))
    mixed = numbers([0.3, 0.1, 2.0])
    inverse = variances ** -mixed[:, None, None]
    assert torch.allclose(aggregate(means, variances, mixed), (means * inverse).sum(0) / inverse.sum(0))
    # A certain task decides alone, no variance counts as less than the floor, and nothing overflows.
    certain = variances.clone()
    certain[1] = 0.0
    assert torch.allclose(aggregate(means, certain, 1000 * powers), means[1])
    assert torch.allclose(aggregate(means, 1e-300 * variances, 40 * powers), means.mean(0))


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0])
def test_what_the_units_of_a_loss_do(power: float) -> None:
    """A task c times as loud counts c^(1 − 2·power) times as much next to the others."""
    means, variances, c = drawn(2, 4, 5), drawn(2, 4, 5, seed=2).exp(), 7.0
    scales, powers = numbers([1.0, c])[:, None, None], numbers([power, power])
    inverse = variances ** -numbers(power)
    loud = (inverse[0] * means[0] + c ** (1 - 2 * power) * inverse[1] * means[1]) / (
        inverse[0] + c ** (-2 * power) * inverse[1]
    )
    assert torch.allclose(aggregate(scales * means, scales**2 * variances, powers), loud)


# -- steps


class Mixed(nn.Module):
    """An encoder with a head of every kind, with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh())
        self.heads = nn.ModuleDict(
            {
                "one": nn.Linear(WIDTH, 1),
                "two": nn.Linear(WIDTH, 2, bias=False),
                "kind": nn.Linear(WIDTH, 3),
                "answer": nn.Linear(WIDTH, 1),
            }
        )


def mixed_losses(model: Any, data: Any) -> dict[str, Tensor]:
    features = model.encoder(data["x"])
    found = {
        "one": lambda: F.mse_loss(model.heads["one"](features).squeeze(1), data["one"]),
        "two": lambda: 5 * F.mse_loss(model.heads["two"](features), data["two"]),
        "kind": lambda: F.cross_entropy(model.heads["kind"](features), data["kind"], reduction="sum"),
        "answer": lambda: F.binary_cross_entropy_with_logits(
            model.heads["answer"](features).squeeze(1), data["answer"].float()
        ),
    }
    return {task: loss() for task, loss in found.items() if task in data}


def mixed_targets(data: Any) -> dict[str, Tensor]:
    return data


def mixed_batch(seed: int = 0, size: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 6, generator=generator)
    return {
        "x": x,
        "one": x[:, 0] - x[:, 1],
        "two": x[:, 2:4].sin() + 0.1 * torch.randn(size, 2, generator=generator),
        "kind": x[:, :3].argmax(1),
        "answer": x[:, 4] > 0,
    }


def mixed(
    *, lr: float = 0.05, function: Any = mixed_losses, make: Any = torch.optim.SGD, **options: Any
) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Mixed()
    balancer = BayesAggMTL("encoder", {task: f"heads.{task}" for task in model.heads}, mixed_targets, **options)
    objective = eq.Objective(model, function, tasks=list(model.heads))
    return eq.MultiTaskOptimizer(objective, make(model.parameters(), lr=lr), balancer)


def gradients_of(module: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])  # type: ignore[union-attr]


def by_hand(model: Any, data: Any, epoch: list[Any], *, gamma: float, power: float, samples: int, seed: int = 0) -> Tensor:
    """The direction of the features, task by task and sample by sample with what torch has for linear algebra."""
    generator = torch.Generator().manual_seed(seed)
    features = model.encoder(data["x"]).detach().double()
    multiples = {"one": 1.0, "two": 5.0, "kind": float(len(features)), "answer": 1.0}
    means, variances = [], []
    for task, head in model.heads.items():
        weights = head.weight.detach().double()
        if head.bias is not None:
            weights = torch.cat([weights, head.bias.detach().double()[:, None]], 1)

        def energy(flat: Tensor, data: Any, task: str = task, shape: Any = weights.shape) -> Tensor:
            h = model.encoder(data["x"]).detach().double()
            h = torch.cat([h, torch.ones(len(h), 1).double()], 1)[:, : shape[1]]
            z = h @ flat.view(shape).T
            if task in ("one", "two"):
                return (z - data[task].double().view(z.shape)).square().sum() / 2
            if task == "kind":
                return F.cross_entropy(z, data[task], reduction="sum")
            return F.binary_cross_entropy_with_logits(z[:, 0], data[task].double(), reduction="sum")

        flat = weights.flatten()

        def everything(flat: Tensor, energy: Any = energy) -> Tensor:
            return flat.square().sum() / (2 * gamma) + sum(energy(flat, part) for part in [*epoch, data])

        hessian = torch.autograd.functional.hessian(everything, flat)
        center = flat - torch.linalg.solve(hessian, torch.autograd.functional.jacobian(everything, flat))
        covariance = torch.linalg.inv(hessian)
        if task in ("one", "two"):
            draws = torch.distributions.MultivariateNormal(center, covariance).sample((60_000,))
        else:
            noise = torch.randn(samples, 1, len(flat), generator=generator)[:, 0].double()
            draws = center + torch.linalg.solve_triangular(torch.linalg.cholesky(hessian).T, noise.T, upper=True).T
        draws = draws.view(len(draws), *weights.shape)
        inputs = torch.cat([features, torch.ones(len(features), 1).double()], 1)[:, : weights.shape[1]]
        z = torch.einsum("ni,sci->snc", inputs, draws)
        if task in ("one", "two"):
            q = 2 * (z - data[task].double().view(z.shape[1:])) / z.shape[2]
        elif task == "kind":
            q = z.softmax(-1) - F.one_hot(data[task], 3)
        else:
            q = z.sigmoid() - data[task].double()[:, None]
        g = multiples[task] * torch.einsum("snc,sci->sni", q, draws[:, :, :WIDTH])
        means.append(g.mean(0))
        variances.append(g.var(0, correction=0))
    inverse = torch.stack(variances) ** -power
    return (torch.stack(means) * inverse).sum(0) / inverse.sum(0) / len(features)


def test_a_step_takes_the_aggregated_direction_through_the_encoder() -> None:
    """After an epoch of two batches, everything by hand; parameters stand still so that the hand can follow."""
    options = {"gamma": 0.4, "power": 0.8, "samples": 64}
    mtl = mixed(lr=0.0, warm_up=1, **options)
    model: Any = mtl.objective.model
    epoch, data = [mixed_batch(1), mixed_batch(2, size=7)], mixed_batch(3)
    for part in epoch:
        mtl.step(part)
    mtl.end_epoch()
    mtl.step(data)
    found = gradients_of(model.encoder).clone()
    own = {task: gradients_of(head).clone() for task, head in model.heads.items()}
    direction = by_hand(model, data, epoch, **options)
    model.zero_grad()
    model.encoder(data["x"]).backward(direction.float())
    expected = gradients_of(model.encoder)
    # Squared errors are integrated by draws here: a tolerance for those.
    assert float((found - expected).norm() / expected.norm()) < 0.01
    model.zero_grad()
    sum(mixed_losses(model, data).values()).backward()  # type: ignore[union-attr]
    for task, head in model.heads.items():
        assert torch.allclose(own[task], gradients_of(head), atol=1e-6)
    plain = gradients_of(model.encoder)
    assert float(torch.cosine_similarity(found, plain, dim=0)) < 0.999  # and it is not the sum of the gradients


def test_the_first_epochs_are_plain_training() -> None:
    ours, plain = mixed(warm_up=2, make=torch.optim.Adam, lr=0.01), None
    torch.manual_seed(0)
    plain = Mixed()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for epoch in range(3):
        for step in range(2):
            data = mixed_batch(10 * epoch + step)
            if epoch == 2:
                ours.step(data)
                break
            ours.step(data)
            optimizer.zero_grad()
            sum(mixed_losses(plain, data).values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            assert same(parameters_of(ours.objective.model), parameters_of(plain), atol=1e-6)
        ours.end_epoch()
    assert not same(parameters_of(ours.objective.model), parameters_of(plain), atol=1e-4)


def test_epochs_by_their_length_and_without_warm_up() -> None:
    counted, called = mixed(steps_per_epoch=2), mixed()
    for step in range(5):
        counted.step(mixed_batch(step))
        counted.end_epoch()  # has no say then
        called.step(mixed_batch(step))
        if step % 2:
            called.end_epoch()
    assert counted.balancer.epochs == called.balancer.epochs == 2
    assert same(parameters_of(counted.objective.model), parameters_of(called.objective.model))
    first = mixed(warm_up=0)
    first.step(mixed_batch())
    assert not same(parameters_of(first.objective.model), parameters_of(one_step(mixed()).objective.model), atol=1e-5)


def one_step(mtl: eq.MultiTaskOptimizer) -> eq.MultiTaskOptimizer:
    mtl.step(mixed_batch())
    return mtl


def test_the_posterior_is_for_predictions_too() -> None:
    """On a frozen encoder an epoch's posterior mean is ridge regression, whatever the head has learned."""
    mtl = mixed(lr=0.0, gamma=10.0)
    parts = [mixed_batch(step) for step in range(4)]
    with pytest.raises(eq.InputError, match='no epoch with task "one" is over yet'):
        mtl.balancer.posterior("one")
    for part in parts:
        mtl.step(part)
    mtl.end_epoch()
    features = torch.cat([mtl.objective.model.encoder(part["x"]) for part in parts]).detach().double()
    inputs = torch.cat([features, torch.ones(len(features), 1)], 1)
    values = torch.cat([part["one"] for part in parts]).double()
    ridge = torch.linalg.solve(inputs.T @ inputs + 0.1 * torch.eye(WIDTH + 1), inputs.T @ values)
    assert torch.allclose(mtl.balancer.posterior("one").mean()[0, :, 0], ridge, atol=1e-9)


def test_tasks_that_a_batch_lacks_keep_what_is_known_of_them() -> None:
    mtl = mixed()
    mtl.step(mixed_batch())
    mtl.end_epoch()
    before = mtl.balancer.state_dict()
    for step in range(2):
        part = {key: value for key, value in mixed_batch(step).items() if key != "kind"}
        mtl.step(part)
    mtl.end_epoch()
    after = mtl.balancer.state_dict()
    assert torch.equal(before["known"]["kind"][0], after["known"]["kind"][0])
    assert not torch.equal(before["known"]["one"][0], after["known"]["one"][0])
    # A task never seen in an epoch starts from the prior.
    late = mixed()
    late.step({key: value for key, value in mixed_batch().items() if key != "kind"})
    late.end_epoch()
    late.step(mixed_batch(1))
    assert set(late.balancer.sums) == {"one", "two", "kind", "answer"}


def test_multiples_of_losses_scale_their_gradients() -> None:
    def scaled(model: Any, data: Any) -> dict[str, Tensor]:
        return {task: 3.0 * loss for task, loss in mixed_losses(model, data).items()}

    first, second = (mixed(lr=0.0, function=function, warm_up=0) for function in (mixed_losses, scaled))
    first.step(mixed_batch())
    second.step(mixed_batch())
    # All of them alike: the shares stay, the direction is scaled.
    one, other = (gradients_of(mtl.objective.model.encoder) for mtl in (first, second))
    assert torch.allclose(3 * one, other, rtol=1e-4, atol=1e-6)
    assert first.balancer.multiples["two"] == pytest.approx(5, rel=1e-4)
    assert second.balancer.multiples["kind"] == pytest.approx(3 * 12, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-8, 1e6])
@pytest.mark.filterwarnings("ignore:all task gradients")
def test_heads_that_know_nothing_and_targets_of_any_size(scale: float) -> None:
    mtl = mixed(warm_up=0)
    for head in mtl.objective.model.heads.values():
        nn.init.zeros_(head.weight)  # gradients of the features vanish: nothing can be read off them
    data = mixed_batch()
    data["one"], data["two"] = scale * data["one"], scale * data["two"]
    mtl.optimizer.param_groups[0]["lr"] = min(0.05, 1e-3 / scale**2)
    for _ in range(3):
        mtl.step(data)
        mtl.end_epoch()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in mtl.objective.model.parameters())


def test_one_task_follows_its_mean_gradient() -> None:
    torch.manual_seed(0)
    mtl = optimizer_of(BayesAggMTL(gamma=1.0, warm_up=0), Heads(1), lr=0.0)
    data = batch(tasks=1)
    mtl.step(data)
    model: Any = mtl.objective.model
    features = model.encoder(data[0])
    inputs = torch.cat([features.detach().double(), torch.ones(16, 1)], 1)
    evidence = SquaredError().evidence(inputs, data[1].T.double(), torch.zeros(1, 9).double())
    mean, _ = squared_error_moments(Gaussian.spherical(9, 1.0, evidence) + evidence, inputs, data[1].T.double(), 8)
    found = gradients_of(model.encoder).clone()
    model.zero_grad()
    features.backward(mean.float() / 16)
    assert torch.allclose(found, gradients_of(model.encoder), atol=1e-6)


def test_half_precision_forward_passes_are_understood() -> None:
    def casted(model: Any, data: Any) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            features = model.encoder(data["x"])
            outputs = {task: head(features) for task, head in model.heads.items()}
        data = {**data, "kind": data["kind"]}
        return {
            "one": F.mse_loss(outputs["one"].float().squeeze(1), data["one"]),
            "two": F.mse_loss(outputs["two"].float(), data["two"]),
            "kind": F.cross_entropy(outputs["kind"].float(), data["kind"]),
            "answer": F.binary_cross_entropy_with_logits(outputs["answer"].float().squeeze(1), data["answer"].float()),
        }

    mtl = mixed(function=casted)
    first = mtl.step(mixed_batch())
    for _ in range(40):
        last = mtl.step(mixed_batch())
        mtl.end_epoch()
    assert sum(last.values()) < sum(first.values())


# -- what a step may not change


@pytest.mark.parametrize("spoil", ["loss", "gradient", "target"])
def test_a_failed_step_leaves_everything_as_it_was(spoil: str) -> None:
    fails = [False]

    def function(model: Any, data: Any) -> dict[str, Tensor]:
        values = mixed_losses(model, data)
        if not fails[0]:
            return values
        loss = values["one"]
        return values | {"one": loss * float("nan") if spoil == "loss" else loss + (loss - loss.detach()).sqrt()}

    def trained(failing: bool) -> dict[str, Any]:
        mtl = mixed(function=function, make=torch.optim.Adam, lr=0.01)
        for step in range(6):
            if failing and step in (1, 4):
                before, data = kept(mtl.state_dict()), mixed_batch(99)
                if spoil == "target":
                    data["one"][0] = float("inf")
                fails[0] = spoil != "target"
                with pytest.raises(eq.NonFiniteError, match='"one"'):
                    mtl.step(data)
                fails[0] = False
                assert_same_state(mtl.state_dict(), before)
            mtl.step(mixed_batch(step))
            if step == 2:
                mtl.end_epoch()
        return mtl.state_dict()

    assert_same_state(trained(True), trained(False))


def test_a_gradient_scaler_gives_the_same_step() -> None:
    def trained(**options: Any) -> tuple[dict[str, Tensor], list[bool]]:
        torch.manual_seed(0)
        mtl = optimizer_of(BayesAggMTL(), Heads(), lr=0.01, **options)
        skipped = []
        while len(skipped) - sum(skipped) < 6:
            mtl.step(batch())
            skipped.append(mtl.last.skipped)
            if not skipped[-1] and mtl.balancer.steps == 2:
                mtl.end_epoch()
        return parameters_of(mtl.objective.model), skipped

    plain, _ = trained()
    scaled, skipped = trained(scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127))
    assert skipped[0]
    assert same(plain, scaled, atol=1e-5)


def test_resumed_to_the_bit_in_the_middle_of_an_epoch() -> None:
    def go(mtl: eq.MultiTaskOptimizer, steps: range) -> None:
        for step in steps:
            mtl.step(mixed_batch(step))
            if step % 3 == 2:
                mtl.end_epoch()

    straight, stopped = (mixed(make=torch.optim.Adam, lr=0.01) for _ in range(2))
    go(straight, range(10))
    go(stopped, range(5))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = mixed(make=torch.optim.Adam, lr=0.01, seed=5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    go(resumed, range(5, 10))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))
    assert_same_state(resumed.state_dict(), straight.state_dict())


def test_the_draws_are_of_their_seed_and_of_no_other_generator() -> None:
    def trained(seed: int) -> dict[str, Tensor]:
        mtl = mixed(warm_up=0, seed=seed)
        before = torch.get_rng_state()
        for step in range(2):
            mtl.step(mixed_batch(step))
        assert torch.equal(before, torch.get_rng_state())
        return parameters_of(mtl.objective.model)

    assert same(trained(1), trained(1))
    assert not same(trained(1), trained(2))


# -- real data


def real() -> tuple[Tensor, dict[str, Tensor]]:
    """Handwritten digits: which it is, whether it is even, how much ink it took, and where the ink lies."""
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    pictures = torch.tensor(bundled.images, dtype=torch.float32) / 16
    ink = pictures.mean((1, 2))
    places = torch.arange(8.0) / 7
    low = (pictures.sum(2) * places).sum(1) / pictures.sum((1, 2))
    kinds = torch.tensor(bundled.target, dtype=torch.int64)
    standard = {name: (values - values.mean()) / values.std() for name, values in (("ink", ink), ("low", low))}
    return pictures.flatten(1), {"kind": kinds, "even": kinds % 2 == 0, **standard}


def real_losses(model: Any, data: Any) -> dict[str, Tensor]:
    features = model["encoder"](data["x"])
    return {
        "kind": F.cross_entropy(model["kind"](features), data["kind"]),
        "even": F.binary_cross_entropy_with_logits(model["even"](features).squeeze(1), data["even"].float()),
        "ink": F.mse_loss(model["ink"](features).squeeze(1), data["ink"]),
        "low": F.mse_loss(model["low"](features).squeeze(1), data["low"]),
    }


def real_model() -> nn.ModuleDict:
    parts = {"encoder": nn.Sequential(nn.Linear(64, 32), nn.ELU(), nn.Linear(32, 16), nn.ELU())}
    return nn.ModuleDict(parts | {task: nn.Linear(16, 10 if task == "kind" else 1) for task in ("kind", "even", "ink", "low")})


def test_real_data_next_to_linear_scalarization() -> None:
    """Every task is learned, with uncertainty at work; the plain sum is hard to beat here, and not beaten."""
    pictures, labels = real()
    halves = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(9)).split(1400)

    def of(rows: Tensor) -> dict[str, Tensor]:
        return {"x": pictures[rows]} | {task: values[rows] for task, values in labels.items()}

    def trained(balancer: eq.balance.Balancer) -> dict[str, float]:
        torch.manual_seed(0)
        model = real_model()
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, real_losses), torch.optim.Adam(model.parameters(), lr=3e-3), balancer)
        order = torch.Generator().manual_seed(0)
        for _ in range(12):
            for rows in torch.randperm(1400, generator=order).split(140):
                mtl.step(of(halves[0][rows]))
            mtl.end_epoch()
        with torch.no_grad():
            return {task: float(loss) for task, loss in real_losses(model, of(halves[1])).items()}

    heads = {task: task for task in labels}
    ours = trained(BayesAggMTL("encoder", heads, lambda data: data, samples=32))
    plain = trained(eq.LS())
    nothing = {"kind": math.log(10), "even": math.log(2), "ink": 1.0, "low": 1.0}
    for task in labels:
        assert ours[task] < 0.7 * nothing[task], (task, ours, plain)
        assert ours[task] < 2 * plain[task] + 0.1, (task, ours, plain)


# -- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gamma": 0.0}, "gamma, the prior's variance, must be positive and finite; got 0.0"),
        ({"gamma": float("inf")}, "gamma, the prior's variance"),
        ({"power": -0.1}, "power must be finite and at least 0"),
        ({"noise": 0.0}, "noise, the variance of squared errors' targets, must be positive; got 0.0"),
        ({"noise": [1.0, 0.0]}, "noise, the variance"),
        ({"noise": {"even": 0.0}}, "noise, the variance"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"warm_up": -1}, "warm_up must be a number of epochs from 0 on; got -1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1; got 0"),
        ({"features": 3}, "features must be a module or its name in the model; got int"),
        ({"heads": ["a"]}, "heads must be a mapping task → nn.Linear or its name in the model"),
        ({"heads": {"a": 1}}, 'the head of task "a" must be a module or its name; got int'),
        ({"targets": {"a": 1}}, "targets must be a function that gives a batch's targets by task; got dict"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.InputError, match=re.escape(said)):
        BayesAggMTL(**options)


def test_bad_parts() -> None:
    def made(features: Any = "encoder", heads: Any = None, **declared: Any) -> None:
        torch.manual_seed(0)
        model = Heads()
        heads = {f"t{k}": f"heads.{k}" for k in range(3)} if heads is None else heads
        objective = eq.Objective(model, losses, **declared)
        eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.1), BayesAggMTL(features, heads, targets))

    for balancer in (BayesAggMTL(), BayesAggMTL("encoder", {"t0": "heads.0"})):
        with pytest.raises(eq.InputError, match="must know all three: BayesAggMTL"):
            balancer.attach(eq.Objective(Heads(), losses))
    with pytest.raises(eq.InputError, match='no module "encodr"'):
        made("encodr")
    with pytest.raises(eq.InputError, match="features must be a part of the objective's model; the Linear given is not"):
        made(nn.Linear(2, 2))
    with pytest.raises(
        eq.InputError, match=r'needs heads that are nn.Linear on the shared features; that of task "t0" is Tanh'
    ):
        made(heads={"t0": "encoder.1"})
    with pytest.raises(eq.InputError, match=r'no head for task "t2"\. Did you mean'):
        made(heads={"t0": "heads.0", "t1": "heads.1"}, tasks=["t0", "t1", "t2"])


def refused(said: str, function: Any = mixed_losses, data: Any = None, balancer: Any = None) -> None:
    mtl = mixed(function=function)
    if balancer is not None:
        mtl.balancer._targets = balancer
    before = kept(mtl.state_dict())
    with pytest.raises(eq.InputError, match=re.escape(said)):
        mtl.step(mixed_batch() if data is None else data)
    assert_same_state(mtl.state_dict(), before)
    assert all(parameter.grad is None for parameter in mtl.objective.model.parameters())


@pytest.mark.parametrize(
    ("task", "loss", "name"),
    [
        ("one", lambda h, head, data: F.l1_loss(head(h).squeeze(1), data["one"]), "the mean squared error"),
        ("one", lambda h, head, data: F.mse_loss(head(h.relu()).squeeze(1), data["one"]), "the mean squared error"),
        ("one", lambda h, head, data: F.mse_loss(head(h).squeeze(1), data["one"].flip(0)), "the mean squared error"),
        ("one", lambda h, head, data: -F.mse_loss(head(h).squeeze(1), data["one"]), "the mean squared error"),
        ("one", lambda h, head, data: F.mse_loss(head(F.dropout(h, 0.2)).squeeze(1), data["one"]), "the mean squared error"),
        ("kind", lambda h, head, data: F.cross_entropy(head(h), data["kind"], label_smoothing=0.2), "the cross-entropy"),
        ("kind", lambda h, head, data: F.cross_entropy(head(h), data["kind"], torch.tensor([1.0, 2, 3])), "the cross-entropy"),
        ("answer", lambda h, head, data: F.softplus(head(h)).mean(), "the binary cross-entropy"),
    ],
)
def test_losses_that_are_not_the_heads_are_refused(task: str, loss: Any, name: str) -> None:
    def function(model: Any, data: Any) -> dict[str, Tensor]:
        features = model.encoder(data["x"])
        found = {
            "one": lambda: F.mse_loss(model.heads["one"](features).squeeze(1), data["one"]),
            "kind": lambda: F.cross_entropy(model.heads["kind"](features), data["kind"]),
            "answer": lambda: F.binary_cross_entropy_with_logits(
                model.heads["answer"](features).squeeze(1), data["answer"].float()
            ),
        }
        return {key: loss(features, model.heads[key], data) if key == task else own() for key, own in found.items()}

    refused(f'the loss of task "{task}" is not a positive multiple of {name} of its head on the features', function)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("one", torch.zeros(12, 2), 'the targets of task "one" must have the shape [12, 1] or [12]'),
        (
            "one",
            torch.zeros(12, dtype=torch.int64),
            "integers, so classes, of which its head knows 1; give numbers as floating",
        ),
        ("one", [0.0] * 12, 'the targets of task "one" must be a tensor; got list'),
        ("one", torch.zeros(12, dtype=torch.complex64), "must be floating-point, integer or boolean; got torch.complex64"),
        ("two", torch.zeros(12), 'the targets of task "two" must have the shape [12, 2]'),
        ("kind", torch.zeros(12, 3, dtype=torch.int64), "integers, so classes, and must have the shape [12]; got [12, 3]"),
        ("kind", torch.full((12,), -100), 'the classes of task "kind" must be from 0 to 2; got -100'),
        ("kind", torch.full((12,), 3), 'the classes of task "kind" must be from 0 to 2; got 3'),
    ],
)
def test_bad_targets(key: str, value: Any, said: str) -> None:
    refused(said, balancer=lambda data: {**data, key: value})


def test_targets_that_are_missing() -> None:
    refused(
        'targets(batch) gave nothing for task "kind", although it has a loss',
        balancer=lambda data: {key: value for key, value in data.items() if key != "kind"},
    )
    refused("targets(batch) must give a mapping task → tensor; it gave list", balancer=lambda data: [1])


def test_what_a_step_cannot_do() -> None:
    mtl = mixed()
    with pytest.raises(eq.InputError, match="takes one batch per step"):
        mtl.step(mixed_batch(), mixed_batch(1))
    with pytest.raises(eq.InputError, match="losses given as callables have inputs of their own"):
        mixed(function=lambda model, data: {"one": lambda: mixed_losses(model, data)["one"]}).step(mixed_batch())
    model = mtl.objective.model
    with pytest.raises(eq.InputError, match="use MultiTaskOptimizer"):
        eq.backward(mixed_losses(model, mixed_batch()), mtl.balancer)
    with pytest.raises(eq.InputError, match="decides in the steps of MultiTaskOptimizer"):
        BayesAggMTL(warm_up=0).decide(eq.balance.Observation(("a",), (0,), torch.ones(1), gradients=torch.ones(1, 4)))
    torch.manual_seed(0)
    wide = nn.ModuleDict({"encoder": nn.Conv1d(6, 4, 1), "one": nn.Linear(3, 1)})

    def function(model: Any, data: Any) -> dict[str, Tensor]:
        return {"one": model["one"](model["encoder"](data["x"])).square().mean()}

    balancer = BayesAggMTL("encoder", {"one": "one"}, lambda data: {"one": torch.zeros(2)})
    mtl = eq.MultiTaskOptimizer(eq.Objective(wide, function), torch.optim.SGD(wide.parameters(), lr=0.1), balancer)
    with pytest.raises(eq.InputError, match=r"needs features of the shape \[samples, features\]; got \[2, 4, 3\]"):
        mtl.step({"x": torch.randn(2, 6, 3)})


def test_what_was_learned_of_another_problem_is_refused() -> None:
    mtl = mixed()
    mtl.step(mixed_batch())
    with pytest.raises(eq.InputError, match="BayesAggMTL keeps the state"):
        mtl.balancer.load_state_dict({})
    state = mtl.balancer.state_dict()
    state["sums"]["one"] = tuple(part.repeat(2, 1, 1) for part in state["sums"]["one"])
    mtl.balancer.load_state_dict(state)
    with pytest.raises(eq.InputError, match='head of task "one" or the kind of its targets is not what this BayesAggMTL has'):
        mtl.step(mixed_batch())


def test_an_epoch_without_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.balance.per_task._PATIENCE", 2)
    mtl = mixed()
    mtl.step(mixed_batch())
    with pytest.warns(UserWarning, match="has seen 2 steps and no end of an epoch"):
        mtl.step(mixed_batch())


def test_likelihoods_follow_the_targets() -> None:
    kinds = {
        "float": (torch.zeros(4), 1, SquaredError),
        "double": (torch.zeros(4, 2).double(), 2, SquaredError),
        "bool": (torch.zeros(4, dtype=torch.bool), 1, BinaryCrossEntropy),
        "bytes": (torch.zeros(4, dtype=torch.uint8), 3, CrossEntropy),
    }
    for values, outputs, kind in kinds.values():
        likelihood, shaped = likelihood_of("x", values, 4, outputs)
        assert type(likelihood) is kind
        assert shaped.shape == ((4,) if kind is CrossEntropy else (outputs, 4))


# -- studies


def lines(**options: Any) -> Problem:
    rows = {"x": torch.randn(64, 6, generator=torch.Generator().manual_seed(0))}
    rows["y"] = rows["x"][:, :3].sin()

    def build(seed: int) -> Any:
        return Heads(), lambda model, data: losses(model, (data["x"], data["y"]))

    def data(seed: int) -> Splits:
        loader = eq.data.TensorBatches(rows, 16, shuffle=True, seed=seed)
        return Splits(loader, None, loader)

    def evaluate(model: Any, loader: Any) -> dict[str, float]:
        outputs = [torch.stack(model(part["x"]), 1) - part["y"] for part in loader]
        return dict(zip(("t0", "t1", "t2"), torch.cat(outputs).abs().mean(0).tolist(), strict=True))

    metrics = [eq.metrics.Metric(task, task, higher_is_better=False) for task in ("t0", "t1", "t2")]
    return Problem("lines", ["t0", "t1", "t2"], metrics, build, data, evaluate, epochs=2, **options)  # type: ignore[arg-type]


def parts(model: Any) -> dict[str, Any]:
    return {"features": model.encoder, "heads": {f"t{k}": head for k, head in enumerate(model.heads)}}


def test_studies_run_it_where_heads_are_linear(tmp_path: Path) -> None:
    bare, half = lines(), lines(parts=parts)
    with pytest.raises(eq.InputError, match='method "bayesagg-mtl" acts on parts of the model, and problem "lines"'):
        Study(bare, "ls,bayesagg-mtl", folder=tmp_path)
    for problem in (half, digits_problem()):
        with pytest.raises(eq.InputError, match='"bayesagg-mtl" applies to linear heads whose targets it knows, and problem'):
            Study(problem, "ls,bayesagg-mtl", folder=tmp_path)
        Study(problem, "ls,rotograd", folder=tmp_path)
    whole = lines(parts=parts, targets=lambda data: targets((data["x"], data["y"])))
    state = torch.get_rng_state()
    record = train(whole, Run(0, method=parse_methods("bayesagg-mtl:gamma=0.5")[0]), epochs=3, gramian_every=2)
    torch.set_rng_state(state)
    assert record["history"][-1]["conflicts"]["steps"] == 4
    assert record["history"][-1]["losses"]["t0"] < record["history"][0]["losses"]["t0"]
