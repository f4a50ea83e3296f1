"""Every inner step's gradient against automatic differentiation of eq. 7 to 11, written down anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from equipoise.teleport import Dense, Formulation, LowRank, PaperFormulation, ReleasedFormulation
from tests import problems
from tests.teleport.helpers import eager_cost, optimizer_with, task_gradients

STEPS, RANK = 4, 2


class Recorder(torch.optim.SGD):
    """Notes factors and gradients of every inner step."""

    points: list[list[Tensor]]
    gradients: list[list[Tensor]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        factors = self.param_groups[0]["params"]
        self.points.append([factor.detach().clone() for factor in factors])
        self.gradients.append([factor.grad.clone() for factor in factors])
        super().step()


class Noted(Formulation):
    """Notes the perturbations of another formulation, and leaves everything else to it."""

    def __init__(self, inner: PaperFormulation | ReleasedFormulation) -> None:
        self.inner = inner
        self.drawn: list[dict[str, Tensor]] = []
        self.gamma, self.radius = inner.gamma, inner.radius
        self.name = inner.name  # type: ignore[misc]
        self.evaluation_mode = inner.evaluation_mode  # type: ignore[misc]
        self.pooled_reference = inner.pooled_reference
        self.on_trigger = inner.on_trigger  # type: ignore[misc]
        self.perturbs_all = inner.perturbs_all  # type: ignore[misc]

    def balance(self, norms: Any) -> Any:
        return self.inner.balance(norms)

    def noise(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        self.drawn.append(self.inner.noise(parameters, generator))
        return self.drawn[-1]

    def terms(self, *arguments: Any) -> Any:
        return self.inner.terms(*arguments)


class Searched:
    """One search on a small network with dropout, everything about it noted."""

    def __init__(self, formulation: Formulation, samples: int, scaling: str, delta: Any, batches: int = 2) -> None:
        torch.manual_seed(0)
        self.model = problems.Heads(dropout=0.3).double()
        self.formulation = Noted(formulation)  # type: ignore[arg-type]

        def recorder(factors: list[Tensor], lr: float) -> Recorder:
            self.inner = Recorder(factors, lr)
            self.inner.points, self.inner.gradients = [], []
            return self.inner

        def conflict(gramian: Any) -> bool:
            self.theta = problems.parameters_of(self.model)
            self.random = torch.get_rng_state()
            return True

        cost = eager_cost(
            conflict,
            formulation=self.formulation,
            samples=samples,
            scaling=scaling,
            delta=delta,
            steps=STEPS,
            lr=0.05,
            optimizer=recorder,
            probe_batches=batches,
            held_out_batches=1,
        )
        # Equal weighting leaves parameters without a task alone, and its Gramian is formed for the trigger only.
        mtl = optimizer_with(cost, "mgda", self.model, lr=0.01)
        given = [tuple(tensor.double() for tensor in problems.batch(seed=step)) for step in range(batches + 1)]
        for batch in given:
            mtl.step(batch)
        self.report = cost.attempts[-1]
        self.search = given[:0:-1]  # the newest first
        self.shared = [name for name in self.theta if name.startswith("encoder")]

    def losses(self, parameters: dict[str, Tensor], batch: Any, *, evaluation: bool) -> Tensor:
        was = self.model.training
        self.model.train(not evaluation)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            found = problems.losses(lambda inputs: functional_call(self.model, parameters, (inputs,)), batch)  # type: ignore[arg-type]
        self.model.train(was)
        return torch.stack(list(found.values()))


def expected_gradients(run: Searched, step: int, make: Any, samples: int, scaling: str) -> tuple[float, float, list[Tensor]]:
    """L_t, L_g and the factors' gradients of one inner step."""
    formulation = run.formulation
    evaluation, tasks = formulation.evaluation_mode, 3
    at_theta = [run.losses(run.theta, batch, evaluation=evaluation) for batch in run.search]
    pooled = torch.stack(at_theta).mean(0)
    sizes = pooled.abs() if scaling == "relative" else torch.ones_like(pooled)
    # R comes from the gradients at θ on the batch of the step, in the mode of training.
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in run.theta.items()}
    judged = dict(enumerate(run.losses(leaves, run.search[0], evaluation=False).unbind()))
    rows = task_gradients(judged, [leaves[name] for name in run.shared])  # type: ignore[arg-type]
    norms = rows.norm(dim=1) / sizes
    if formulation.name == "paper":
        balance = tasks * torch.softmax(norms.sum() / norms, 0)
    else:
        balance = tasks * (1 - norms / norms.sum())
    place = step % len(run.search)
    reference = pooled if formulation.pooled_reference else at_theta[place]
    factors = [factor.clone().requires_grad_() for factor in run.inner.points[step]]
    point = run.theta | make(run, factors)

    def at(parameters: dict[str, Tensor], place: int = place) -> Tensor:
        return run.losses(parameters, run.search[place], evaluation=evaluation) / sizes

    noises = formulation.drawn[step * samples : (step + 1) * samples]
    invariance = (at(point) - reference / sizes).abs().mean()
    if formulation.name == "paper":
        assert set(noises[0]) == set(run.shared)
        here = at(point)
        rises = [at(point | {name: point[name] + noise[name] for name in run.shared}) - here for noise in noises]
        reward = torch.stack([(balance * rise).mean().abs() for rise in rises]).max()
        total = invariance - formulation.gamma * reward
    else:
        # On the batch of the step, heads perturbed too, the copies outside the graph.
        here = at(point, 0)
        rises = [at({name: value + noise[name] for name, value in point.items()}, 0).detach() - here for noise in noises]
        reward = (balance * torch.stack(rises).abs().max(0).values).mean() / formulation.radius
        total = 10 * invariance - formulation.gamma * reward
    return float(invariance.detach()), float(reward.detach()), list(torch.autograd.grad(total, factors))


def dense(run: Searched, factors: list[Tensor]) -> dict[str, Tensor]:
    return {name: run.theta[name] + factor for name, factor in zip(run.shared, factors, strict=True)}


def low_rank(run: Searched, factors: list[Tensor]) -> dict[str, Tensor]:
    weights = [name for name in run.shared if run.theta[name].dim() == 2]
    pairs = zip(factors[::2], factors[1::2], strict=True)
    return {name: run.theta[name] + 8.0 / RANK * left @ right for name, (left, right) in zip(weights, pairs, strict=True)}


@pytest.mark.parametrize("scaling", ["relative", "none"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("delta", "make"), [(Dense(), dense), (LowRank(rank=RANK), low_rank)])
@pytest.mark.parametrize("formulation", [PaperFormulation(gamma=0.2), ReleasedFormulation(radius=0.01)])
def test_inner_gradients(formulation: Any, delta: Any, make: Any, samples: int, scaling: str) -> None:
    run = Searched(formulation, samples, scaling, delta)
    assert len(run.inner.gradients) == len(run.report.invariance) == len(run.report.reward) == STEPS
    assert len(run.formulation.drawn) == STEPS * samples
    for step in range(STEPS):
        invariance, reward, expected = expected_gradients(run, step, make, samples, scaling)
        assert run.report.invariance[step] == pytest.approx(invariance, rel=1e-9, abs=1e-14)
        assert run.report.reward[step] == pytest.approx(reward, rel=1e-9)
        size = max(float(gradient.abs().max()) for gradient in expected)
        assert size > 0
        for found, gradient in zip(run.inner.gradients[step], expected, strict=True):
            torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-10 * size)


def test_without_the_search_for_sharpness_nothing_moves() -> None:
    run = Searched(PaperFormulation(gamma=0.0), 2, "relative", Dense())
    assert run.report.distance == 0.0
    assert run.report.invariance == (0.0,) * STEPS


def test_the_search_leaves_the_model_alone() -> None:
    """Modes, gradients and flags of the model are as before it."""
    model = nn.ModuleDict({"inner": problems.Heads(dropout=0.3, norm=True)})
    model["inner"].encoder[3].eval()  # one part stays in evaluation mode on purpose
    modes = [module.training for module in model.modules()]

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        return problems.losses(model["inner"], batch)  # type: ignore[index]

    cost = eager_cost(formulation=ReleasedFormulation(), delta=Dense())
    mtl = optimizer_with(cost, "mgda", model, losses)
    for step in range(3):
        mtl.step(problems.batch(seed=step))
    assert len(cost.attempts) == 2
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
